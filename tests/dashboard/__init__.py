"""The dashboard for Grafana: checked by Grafana's types, and shown by its components on a program under load.

make installs the npm packages once into .cache/npm-dashboard, with the Node.js that comes with the development group.
"""

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
MONITORING: Final = ROOT / "docs" / "monitoring"
PACKAGES: Final = ROOT / ".cache" / "npm-dashboard"
