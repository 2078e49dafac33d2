// The dashboard's JSON, drawn by Grafana's own components with the answers of a Prometheus, and without a Grafana server:
// page.html?prometheus=URL&from=MS&to=MS&scrape=4s. Its title becomes "drawn", or says "failed" and why.
import { createRoot } from 'react-dom/client';
import {
  FieldType, ThemeContext, applyFieldOverrides, createDataFrame, createTheme, dateTime,
  getDisplayValueAlignmentFactors, getFieldDisplayValues, rangeUtil, standardFieldConfigEditorRegistry,
} from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import {
  BigValue, GlobalStyles, InlineField, Input, PanelChrome, Stack, Text, TimeRangeLabel, TimeSeries, VizRepeater,
} from '@grafana/ui';
import dashboard from '../../docs/monitoring/dashboard.json';

const asked = Object.fromEntries(new URLSearchParams(location.search));
const [from, to] = [dateTime(Number(asked.from)), dateTime(Number(asked.to))];
const range = { from, to, raw: { from, to } };
const theme = createTheme({ colors: { mode: 'dark' } });
const timeZone = 'utc';

// Pixels of Grafana's grid: public/app/core/constants.ts.
const [COLUMNS, CELL, GAP, EDGE] = [24, 30, 8, 16];

// Field configuration. In Grafana each panel's plugin registers its properties; the plugins are on no registry.

const STANDARD = ['unit', 'min', 'max', 'decimals', 'color', 'thresholds', 'displayName', 'noValue', 'mappings'];
const OF_LINES = [
  'drawStyle', 'lineInterpolation', 'lineWidth', 'lineStyle', 'fillOpacity', 'gradientMode', 'spanNulls', 'showPoints',
  'pointSize', 'stacking', 'axisPlacement', 'axisLabel', 'axisSoftMin', 'axisSoftMax', 'scaleDistribution',
  'axisGridShow', 'thresholdsStyle',
];
const PROCESSED = {
  axisGridShow: (shown) => shown ?? true,
  thresholds: (set) => set && { ...set, steps: set.steps.map((step) => ({ ...step, value: step.value ?? -Infinity })) },
};
const property = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path, path, isCustom, name: path,
  shouldApply: (field) => field.type === FieldType.number,
  process: PROCESSED[path] ?? ((value) => value),
});
standardFieldConfigEditorRegistry.setInit(() => [
  ...STANDARD.map((path) => property(path, false)), ...OF_LINES.map((path) => property(path, true)),
]);

// Queries ----------------------------------------------------------------------------------------------

async function ask(path, parameters) {
  const answer = await fetch(`${asked.prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const told = await answer.json();
  if (told.status !== 'success') throw new Error(`${told.error} in ${JSON.stringify(parameters)}`);
  return told.data;
}

function replaced(text, values) {
  return text.replace(/\$\{?(\w+)\}?/g, (variable, name) => {
    if (!(name in values)) throw new Error(`the dashboard has no variable ${variable}: ${text}`);
    return values[name];
  });
}

// Returns the value of each variable when "All" is chosen; its query must have an answer.
async function variables() {
  const values = {};
  for (const { name, type, query, allValue } of dashboard.templating.list) {
    if (type === 'datasource') continue;
    const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(query.query);
    const found = await ask(`label/${label}/values`, { 'match[]': replaced(selector, values) });
    if (!found.length) throw new Error(`the variable ${name} has no values`);
    values[name] = allValue;
  }
  return values;
}

// Asks as Grafana's data source does: a step for each pixel, but none shorter than the interval of scrapes.
async function series(panel, width, values) {
  const { intervalMs } = rangeUtil.calculateInterval(range, width, asked.scrape);
  const scrapeMs = rangeUtil.intervalToMs(asked.scrape);
  const rate = `${Math.max(intervalMs + scrapeMs, 4 * scrapeMs) / 1000}s`;
  const [start, end] = [from, to].map((moment) => (Math.floor(moment.valueOf() / intervalMs) * intervalMs) / 1000);
  const frames = [];
  for (const target of panel.targets) {
    const query = replaced(target.expr, { ...values, __rate_interval: rate });
    const { result } = await ask('query_range', { query, start, end, step: intervalMs / 1000 });
    frames.push(...result.map((line) => frame(target, line, intervalMs)));
  }
  const fieldConfig = panel.fieldConfig;
  return applyFieldOverrides({ data: frames, fieldConfig, replaceVariables: (text) => text, theme, timeZone });
}

function frame({ refId, legendFormat }, { metric, values }, interval) {
  const numbers = values.map(([, text]) => Number(text)).map((value) => (Number.isFinite(value) ? value : null));
  const legend = legendFormat.replace(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? '');
  return createDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: values.map(([moment]) => moment * 1000), config: { interval } },
      { name: 'Value', type: FieldType.number, values: numbers, labels: metric, config: { displayNameFromDS: legend } },
    ],
  });
}

// Panels, as their plugins put Grafana's components together -------------------------------------------

function Stat({ panel: { options, fieldConfig }, data, width, height }) {
  const { colorMode, graphMode, justifyMode, textMode, wideLayout, reduceOptions, orientation } = options;
  const shown = { colorMode, graphMode, justifyMode, textMode, wideLayout, theme };
  const sparkline = graphMode !== 'none';
  const getValues = () => getFieldDisplayValues({
    fieldConfig, reduceOptions, data, sparkline, theme, timeZone, replaceVariables: (text) => text,
  });
  const renderValue = ({ value, ...place }) => (
    <BigValue {...shown} {...place} value={value.display}
      sparkline={value.sparkline && { ...value.sparkline, timeRange: range }} />
  );
  return <VizRepeater {...{ getValues, renderValue, width, height, orientation }} source={data} renderCounter={0}
    getAlignmentFactors={getDisplayValueAlignmentFactors} itemSpacing={3} autoGrid />;
}

function Lines({ panel: { options }, data, width, height }) {
  if (!data.length) return <Stack justifyContent="center" alignItems="center" height="100%"><Text>No data</Text></Stack>;
  return <TimeSeries frames={data} structureRev={1} timeRange={range} timeZone={timeZone} width={width} height={height}
    legend={options.legend} options={options} />;
}

const TYPES = { stat: Stat, timeseries: Lines };

function placed({ x, y, w, h }) {
  const column = (innerWidth - 2 * EDGE + GAP) / COLUMNS;
  return { left: EDGE + x * column, top: y * (CELL + GAP), width: w * column - GAP, height: h * (CELL + GAP) - GAP };
}

function Panel({ panel, data }) {
  const { left, top, width, height } = placed(panel.gridPos);
  const Drawn = TYPES[panel.type];
  return (
    <div style={{ position: 'absolute', left, top, width, height }}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}
        padding={panel.type === 'stat' ? 'none' : 'md'}>
        {(width, height) => <Drawn {...{ panel, data, width, height }} />}
      </PanelChrome>
    </div>
  );
}

function Head() {
  return (
    <Stack alignItems="center" gap={2}>
      <Text element="h1" variant="h4">{dashboard.title}</Text>
      {dashboard.templating.list.map(({ name, label, type, query }) => (
        <InlineField key={name} label={label} style={{ margin: 0 }}>
          <Input readOnly width={14} value={type === 'datasource' ? query : 'All'} />
        </InlineField>
      ))}
      <div style={{ marginLeft: 'auto' }}><TimeRangeLabel value={range} timeZone={timeZone} /></div>
    </Stack>
  );
}

async function main() {
  await initPluginTranslations('storeroom');
  const values = await variables();
  const drawn = [];
  for (const panel of dashboard.panels) {
    if (!TYPES[panel.type]) throw new Error(`panel ${panel.title} is of type ${panel.type}, which is not drawn here`);
    const data = await series(panel, Math.round(placed(panel.gridPos).width), values);
    drawn.push(<Panel key={panel.id} panel={panel} data={data} />);
  }
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => placed(gridPos).top + placed(gridPos).height));
  createRoot(document.body).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ padding: EDGE }}><Head /></div>
      <div style={{ position: 'relative', height: bottom + EDGE }}>{drawn}</div>
    </ThemeContext.Provider>
  );
  await new Promise((done) => { setTimeout(done, 2000); }); // icons, fonts, and legends that are measured
}

const failed = (error) => { document.title = `failed: ${error.message ?? error}`; };
addEventListener('error', ({ error }) => error && failed(error)); // observers of sizes have events without one
main().then(() => { document.title ||= 'drawn'; }, failed);
