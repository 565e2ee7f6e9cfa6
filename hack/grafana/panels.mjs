// SPDX-License-Identifier: Apache-2.0
//
// The kinds of panels. Each takes title, description, unit, w and h, and fails without one of
// the first three.

import * as common from '@grafana/grafana-foundation-sdk/common';
import { FieldColorBuilder, FieldColorModeId, ThresholdsConfigBuilder, ThresholdsMode } from '@grafana/grafana-foundation-sdk/dashboard';
import { MapViewConfigBuilder, ControlsOptionsBuilder, TooltipOptionsBuilder, TooltipMode, PanelBuilder as GeomapBuilder } from '@grafana/grafana-foundation-sdk/geomap';
import { FilterValueRangeBuilder, HeatmapColorMode, HeatmapColorOptionsBuilder, PanelBuilder as HeatmapBuilder, YAxisConfigBuilder } from '@grafana/grafana-foundation-sdk/heatmap';
import { PanelBuilder as PieBuilder, PieChartLegendOptionsBuilder, PieChartLegendValues, PieChartType } from '@grafana/grafana-foundation-sdk/piechart';
import { DataqueryBuilder, PromQueryFormat, QueryEditorMode } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as TableBuilder } from '@grafana/grafana-foundation-sdk/table';
import { PanelBuilder as TimeseriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries';

export const datasource = { type: 'prometheus', uid: '${datasource}' };

// The colours that mean the same everywhere.
export const colours = {
  transmit: 'blue', receive: 'green', failed: 'red',
  locality: { same_node: 'green', same_zone: 'blue', cross_zone: 'orange', external: 'purple', unknown: '#808080' },
};

const query = (expr) => new DataqueryBuilder().datasource(datasource).editorMode(QueryEditorMode.Code).expr(expr);
// A line of a graph for each row of the answer.
export const line = (expr, legend) => query(expr).range().format(PromQueryFormat.TimeSeries).legendFormat(legend);
// The answer at the end of the time that is shown.
export const last = (expr, legend) => query(expr).instant().format(PromQueryFormat.TimeSeries).legendFormat(legend);
// The same as rows, with their labels as columns.
export const rows = (expr) => query(expr).instant().format(PromQueryFormat.Table);
const buckets = (expr) => query(expr).range().format(PromQueryFormat.Heatmap).legendFormat('{{le}}');

const thresholds = (steps) => new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute)
  .steps(steps.map(([value, color]) => ({ value, color })));
// From green to what is wrong at a value.
export const wrongFrom = (value, color = 'red') => [[null, 'green'], [value, color]];

const coloured = (mode) => new FieldColorBuilder().mode(mode);

function begin(builder, o, targets) {
  for (const what of ['title', 'description', 'unit', 'w', 'h']) {
    if (!o[what]) throw new Error(`panel ${o.title}: it has no ${what}`);
  }
  builder.title(o.title).description(o.description).unit(o.unit).span(o.w).height(o.h).datasource(datasource);
  [targets].flat().forEach((target, n) => builder.withTarget(target.refId(String.fromCharCode(65 + n))));
  if (o.decimals !== undefined) builder.decimals(o.decimals);
  if (o.min !== undefined) builder.min(o.min);
  if (o.max !== undefined) builder.max(o.max);
  if (o.noValue !== undefined) builder.noValue(o.noValue);
  if (o.links) builder.dataLinks(o.links.map((link) => ({ build: () => link })));
  for (const [name, color] of Object.entries(o.colours ?? {})) {
    builder.overrideByName(name, [{ id: 'color', value: { mode: 'fixed', fixedColor: color } }]);
  }
  return builder;
}

const lastValue = () => new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false);

// stat is a number; of a line it has its last value, and the line behind it.
export function stat(o, target) {
  const builder = begin(new StatBuilder(), o, target)
    .reduceOptions(lastValue()).colorMode(o.thresholds ? common.BigValueColorMode.Background : common.BigValueColorMode.Value)
    .graphMode(o.graph === false ? common.BigValueGraphMode.None : common.BigValueGraphMode.Area)
    .justifyMode(common.BigValueJustifyMode.Auto).textMode(o.text ?? common.BigValueTextMode.Value);
  builder.colorScheme(o.thresholds ? coloured(FieldColorModeId.Thresholds) : coloured(FieldColorModeId.Fixed).fixedColor(o.color ?? 'blue'));
  return builder.thresholds(thresholds(o.thresholds ?? [[null, o.color ?? 'blue']]));
}

// graph is lines over time. With stack they are areas that add up; what matches below is drawn
// below zero.
export function graph(o, targets) {
  const builder = begin(new TimeseriesBuilder(), o, targets)
    .colorScheme(coloured(FieldColorModeId.PaletteClassicByName))
    .lineWidth(1).fillOpacity(o.stack ? 35 : 10).gradientMode(common.GraphGradientMode.Opacity)
    .showPoints(common.VisibilityMode.Never).spanNulls(false)
    .tooltip(new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending))
    .legend(o.legend === 'list'
      ? new common.VizLegendOptionsBuilder().showLegend(true).displayMode(common.LegendDisplayMode.List).placement(common.LegendPlacement.Bottom).calcs([])
      : new common.VizLegendOptionsBuilder().showLegend(true).displayMode(common.LegendDisplayMode.Table).placement(common.LegendPlacement.Right)
        .calcs(['mean', 'max']).sortBy('Mean').sortDesc(true));
  if (o.stack) builder.stacking(new common.StackingConfigBuilder().mode(o.stack).group('A'));
  if (o.below) builder.overrideByRegexp(o.below, [{ id: 'custom.transform', value: 'negative-Y' }]);
  if (o.thresholds) {
    builder.thresholds(thresholds(o.thresholds))
      .thresholdsStyle(new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed));
  }
  return builder;
}

// donut is shares of a whole.
export function donut(o, targets) {
  return begin(new PieBuilder(), o, targets).pieType(PieChartType.Donut).reduceOptions(lastValue())
    .colorScheme(coloured(FieldColorModeId.PaletteClassicByName)).displayLabels([])
    .tooltip(new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Single))
    .legend(new PieChartLegendOptionsBuilder().showLegend(true).displayMode(common.LegendDisplayMode.Table)
      .placement(common.LegendPlacement.Bottom).values([PieChartLegendValues.Value, PieChartLegendValues.Percent]));
}

// heatmap is buckets over time.
export function heatmap(o, expr) {
  return begin(new HeatmapBuilder(), o, buckets(expr)).calculate(false)
    .color(new HeatmapColorOptionsBuilder().mode(HeatmapColorMode.Scheme).scheme('Spectral').steps(64).reverse(false).exponent(0.5).fill('dark-orange'))
    .yAxis(new YAxisConfigBuilder().unit(o.unit).axisPlacement(common.AxisPlacement.Left)).filterValues(new FilterValueRangeBuilder().le(1e-9));
}

const cells = {
  gauge: { type: 'gauge', mode: 'gradient', valueDisplayMode: 'text' },
  heat: { type: 'color-background', mode: 'gradient' },
  text: { type: 'auto' },
};

const value = ({ unit, cell = 'text', scheme = 'continuous-BlPu', decimals, min, max, steps, noValue }) => [
  { id: 'unit', value: unit },
  { id: 'custom.cellOptions', value: cells[cell] },
  { id: 'custom.align', value: 'right' },
  ...(steps ? [{ id: 'thresholds', value: { mode: 'absolute', steps: steps.map(([value, color]) => ({ value, color })) } }] : []),
  ...(cell === 'text' ? [] : [{ id: 'color', value: { mode: steps ? 'thresholds' : scheme } }]),
  ...Object.entries({ decimals, min, max, noValue }).filter(([, v]) => v !== undefined).map(([id, v]) => ({ id, value: v })),
];

// columns arranges what queries give: names in the order of what is shown. Queries of one panel
// have the same labels and are merged by them.
function columns(builder, o, count) {
  const valueOf = (n) => (count > 1 ? `Value #${String.fromCharCode(65 + n)}` : 'Value');
  const named = { ...o.labels };
  o.values.forEach((v, n) => { named[valueOf(n)] = v.name; });
  if (count > 1) builder.withTransformation({ id: 'merge', options: {} });
  builder.withTransformation({ id: 'organize', options: {
    excludeByName: { Time: true }, indexByName: Object.fromEntries(Object.keys(named).map((name, n) => [name, n])), renameByName: named,
  } });
  for (const [label, links] of Object.entries(o.linked ?? {})) builder.overrideByName(o.labels[label], [{ id: 'links', value: links }]);
}

const plainTable = (o, targets) => begin(new TableBuilder(), { ...o, unit: o.unit ?? o.values?.[0].unit }, targets)
  .cellHeight(common.TableCellHeight.Sm).showHeader(true).filterable(true).colorScheme(coloured(FieldColorModeId.Thresholds));

// table has a row for each label set: columns for labels (label → name), then one for the
// values of each target (name, unit, cell). It is sorted by the first value.
export function table(o, targets) {
  const list = [targets].flat();
  const builder = plainTable(o, list).sortBy([new common.TableSortByFieldStateBuilder().displayName(o.sort ?? o.values[0].name).desc(true)]);
  columns(builder, o, list.length);
  for (const v of o.values) builder.overrideByName(v.name, value(v));
  return builder;
}

// matrix has a row for each value of the label row, a column for each of column, and the heat
// of the value between them.
export function matrix(o, target) {
  return plainTable(o, target)
    .cellOptions(cells.heat).colorScheme(coloured(o.scheme)).filterable(false).align('auto')
    .withTransformation({ id: 'groupingToMatrix', options: { rowField: o.row, columnField: o.column, valueField: 'Value', emptyValue: 'null' } })
    .overrideByName(`${o.row}\\${o.column}`, [
      { id: 'displayName', value: o.corner }, { id: 'custom.cellOptions', value: cells.text }, { id: 'custom.width', value: 220 },
    ]);
}

// map has a mark for each row, where its labels latitude and longitude say.
export function map(o, target) {
  const scale = { field: o.value.name };
  const builder = begin(new GeomapBuilder(), o, target)
    .view(new MapViewConfigBuilder().id('coords').lat(25).lon(10).zoom(1.6).allLayers(true))
    .controls(new ControlsOptionsBuilder().showZoom(true).mouseWheelZoom(false).showAttribution(true).showScale(false).showMeasure(false).showDebug(false))
    .basemap(new common.MapLayerOptionsBuilder().type('default').name('Base'))
    .layers([new common.MapLayerOptionsBuilder().type('markers').name(o.value.name).tooltip(true).config({
      showLegend: true,
      style: {
        size: { ...scale, fixed: 6, min: 5, max: 26 }, color: { ...scale, fixed: 'blue' }, opacity: 0.7,
        symbol: { mode: 'fixed', fixed: 'img/icons/marker/circle.svg' }, symbolAlign: { horizontal: 'center', vertical: 'center' },
        rotation: { mode: 'mod', fixed: 0, min: -360, max: 360 },
        textConfig: { fontSize: 12, offsetX: 0, offsetY: 0, textAlign: 'center', textBaseline: 'middle' },
      },
    }).location(new common.FrameGeometrySourceBuilder().mode(common.FrameGeometrySourceMode.Coords).latitude('latitude').longitude('longitude'))])
    .tooltip(new TooltipOptionsBuilder().mode(TooltipMode.Details)).colorScheme(coloured(FieldColorModeId.ContinuousBlYlRd));
  // Labels are strings, and a place is two numbers.
  builder.withTransformation({ id: 'convertFieldType', options: {
    fields: {}, conversions: ['latitude', 'longitude'].map((targetField) => ({ targetField, destinationType: 'number' })),
  } });
  columns(builder, { ...o, values: [o.value] }, 1);
  return builder.overrideByRegexp('/^(latitude|longitude)$/', [{ id: 'unit', value: 'degree' }]);
}
