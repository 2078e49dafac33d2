"""Advice: estimates with intervals, the settings to write, text, image and JSON."""

import json
import math
import xml.etree.ElementTree as ET

import pytest

from benchmarks.hit_ratio import zipf
from storeroom.advice import Simulation, Subject, advise, ladder, near_sizes
from storeroom.advice.estimate import Known, hit_ratio
from storeroom.advice.miniature import GROUPS
from storeroom.advice.traces import mixed

WRITTEN = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100}}


def replayed(keys, *, sizes, rate=1.0, size=None, timeouts=(), step=0.0, timeout=math.inf):
    simulation = Simulation(sizes, rate=rate, size=size, timeouts=timeouts, timeout=timeout)
    for number, key in enumerate(keys):
        hashed = mixed(key)
        if simulation.takes(hashed):
            simulation.read(key, hashed, number * step)
    return simulation


def advised(keys, subject, **options):
    simulation = replayed(keys, sizes=ladder(subject.size, len(set(keys)), near_sizes), size=subject.size, **options)
    return advise(simulation, subject, scope="A test's traffic.")


def test_all_keys_leave_nothing_unsure():
    """A replay of all keys tells the hit ratio as it is, without an interval."""
    point = hit_ratio(10, [25.0, *[0.0] * (GROUPS - 1)], reads=100, rate=1.0)
    assert (point.hit_ratio, point.low, point.high) == (0.75, 0.75, 0.75)


def test_a_known_hit_ratio_takes_out_what_two_sizes_have_in_common():
    """Misses that are half of those of the size in use are half of the real misses, whatever the sample has lost."""
    misses = [float(each) for each in range(GROUPS)]
    known = Known(0.6, [2 * each for each in misses])
    point = hit_ratio(10, misses, reads=1e6, rate=0.01, known=known)
    assert point.hit_ratio == pytest.approx(0.8)
    assert point.high - point.low < 0.01


def test_groups_that_differ_widen_the_interval():
    """The more the groups of keys differ, the less is known."""
    even, uneven = [50.0] * GROUPS, [0.0, 100.0] * (GROUPS // 2)
    known = Known(0.5, [100.0] * GROUPS)
    narrow, wide = (hit_ratio(10, each, reads=1e5, rate=0.05, known=known) for each in (even, uneven))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_too_few_sampled_keys_say_how_many_are_missing():
    """Below 4,000 sampled keys there is no curve, and no setting, but the number of keys that are missing."""
    simulation = replayed(map(str, range(10_000)), sizes=[1000], rate=0.1, size=1000)
    advice = advise(simulation, Subject("default", WRITTEN, 1000), scope="A test's traffic.")
    assert advice.missing_keys == 4_000 - advice.sampled_keys > 0
    assert not advice.by_max_entries
    assert not advice.changes
    assert "Not enough traffic yet" in advice.text()
    assert f"{advice.missing_keys:,} are missing" in advice.text()
    with pytest.raises(ValueError, match="not enough"):
        advice.svg()


def test_no_read_is_not_enough():
    """Without a read there is nothing to say."""
    assert "no read" in advise(Simulation([10]), Subject("default", WRITTEN, 10), scope="").text()


def test_a_cache_that_is_too_small_gets_the_size_of_the_knee():
    """A loop over 1,000 keys hits from 1,000 entries on, and not before: that is the size to write."""
    keys = [str(number % 1_000) for number in range(20_000)]
    advice = advised(keys, Subject("pages", WRITTEN, 100))
    (change,) = advice.changes
    assert (change.setting, change.before, change.after) == ("OPTIONS['max_entries']", 100, 1_000)
    assert advice.caches == {"pages": {**WRITTEN, "OPTIONS": {"MAX_ENTRIES": 1_000}}}
    assert advice.by_max_entries[-1].hit_ratio == pytest.approx(0.95)


def test_a_cache_that_is_too_large_gets_a_smaller_size():
    """Where 50 keys are read again and again, 10,000 entries are a waste."""
    advice = advised([str(number % 50) for number in range(5_000)], Subject("default", WRITTEN, 10_000))
    (change,) = advice.changes
    assert change.after <= 100
    assert advice.hit_ratio == pytest.approx(0.99)


def test_a_cache_that_fits_gets_no_change():
    """A loop over fewer keys than fit is left alone."""
    advice = advised([str(number % 80) for number in range(5_000)], Subject("default", WRITTEN, 100))
    assert not advice.changes
    assert "Nothing to change" in advice.text()


def test_a_timeout_that_gains_nothing_gets_shorter():
    """Keys that are read within a minute of each other, and then no more, need no day."""
    keys = [str(number // 20) for number in range(20_000)]
    advice = advised(keys, Subject("default", WRITTEN, 100, 86_400.0), timeouts=[10.0, 60.0, 86_400.0], step=1.0)
    (change,) = [each for each in advice.changes if each.setting == "TIMEOUT"]
    assert change.after == 60
    assert advice.caches["default"]["TIMEOUT"] == 60


def test_a_longer_timeout_is_left_to_the_reader():
    """A timeout that would find more is told, not written, and none that is longer than half of the record is."""
    keys = [str(number % 50) for number in range(5_000)]
    subject = Subject("default", WRITTEN, 100, 10.0)
    advice = advised(keys, subject, timeouts=[10.0, 600.0, 3_600.0, math.inf], step=1.0)
    assert [point.at for point in advice.by_timeout] == [10.0, 600.0]
    assert not any(change.setting == "TIMEOUT" for change in advice.changes)
    assert any("A TIMEOUT of 10m in place of 10s" in note for note in advice.notes)


def test_a_server_gets_a_near_tier_where_few_keys_are_read_most():
    """The smallest near tier that answers about as much as a large one is written, with the time that it saves."""
    written = {"BACKEND": "storeroom.backends.redis.RedisCache"}
    subject = Subject("default", written, None, 300.0, is_remote=True, round_trip=0.0005)
    advice = advised([str(number % 500) for number in range(20_000)] + list(map(str, range(20_000))), subject)
    (change,) = advice.changes
    assert change.after == {"max_entries": 1_000}
    assert "saves 0.25 ms a read" in change.effect
    assert advice.caches["default"]["OPTIONS"] == {"near": {"max_entries": 1_000}}


def test_a_sample_names_only_sizes_that_its_miniatures_can_stand_for():
    """A size with fewer than 150 entries in its miniature is not told: the policy does otherwise there."""
    simulation = replayed(map(str, range(90_000)), sizes=[100, 10_000], rate=0.05, size=10_000)
    advice = advise(simulation, Subject("default", WRITTEN, 10_000), scope="", real_hit_ratio=0.0)
    assert [point.at for point in advice.by_max_entries] == [10_000]


def test_the_image_is_svg_with_a_title_and_all_points():
    """The image is well-formed, escapes the alias, and has a dot for each point and the size in use."""
    advice = advised(zipf(5_000, 1_000, 0.9), Subject("<a & b>", WRITTEN, 100))
    root = ET.fromstring(advice.svg())
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "Advice for cache '<a & b>'"
    assert len(list(root.iter(f"{space}circle"))) == len(advice.by_max_entries)
    assert any((each.text or "").startswith("now: ") for each in root.iter(f"{space}text"))


def test_json_has_all_of_the_advice():
    """The dict is what JSON can hold, without infinities."""
    advice = advised(zipf(5_000, 1_000, 0.9), Subject("default", WRITTEN, 100), timeouts=[1.0, math.inf], step=0.01)
    told = json.loads(json.dumps(advice.as_dict(), allow_nan=False))
    assert told["by_timeout"][-1]["at"] is None
    assert told["caches"]["default"]["OPTIONS"]["MAX_ENTRIES"] == advice.changes[0].after


def test_a_bound_in_bytes_is_noted():
    """A replay knows no sizes of values: the answer says so where they matter."""
    advice = advised(zipf(2_000, 500, 0.9), Subject("default", WRITTEN, 100, max_bytes=1_000_000))
    assert any("max_bytes" in note for note in advice.notes)


def test_a_size_in_use_that_is_too_small_for_the_sample_is_said():
    """Where the sample cannot stand for the present size, the answer says from which size on it can."""
    simulation = replayed(map(str, range(90_000)), sizes=[300, 10_000], rate=0.05, size=300)
    advice = advise(simulation, Subject("default", WRITTEN, 300), scope="", real_hit_ratio=0.0)
    assert any("too few for MAX_ENTRIES of 300" in note and "3,000 entries" in note for note in advice.notes)
    assert not advice.changes
