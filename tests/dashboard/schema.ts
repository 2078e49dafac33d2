// Grafana's types of a dashboard, as far as this one uses them: the text of dashboard.json is added, and tsc tells what
// of it is unknown, missing or of another kind.
import type { Dashboard, DataQuery, FieldConfig, FieldConfigSource, GraphFieldConfig, Panel } from '@grafana/schema';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as TimeSeriesOptions } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the text of an enumeration's member.
type Plain<T> = T extends string ? `${T}` : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;

// Grafana's type of a panel lets everything be in its options.
interface PanelOf<Type, Options, Custom> extends Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> {
  type: Type;
  options: Options;
  fieldConfig: {
    defaults: Omit<FieldConfig, 'custom'> & { custom?: Custom };
    overrides: FieldConfigSource['overrides'];
  };
  targets: Array<DataQuery & { expr: string; legendFormat: string }>;
}

type Checked = Plain<
  Omit<Dashboard, 'panels'> & {
    panels: Array<PanelOf<'stat', StatOptions, never> | PanelOf<'timeseries', TimeSeriesOptions, GraphFieldConfig>>;
  }
>;
