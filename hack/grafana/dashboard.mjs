// SPDX-License-Identifier: Apache-2.0
//
// What all dashboards have in common: variables, links to each other, and how panels are laid out.

import {
  DashboardBuilder, DashboardCursorSync, DashboardLinkBuilder, DashboardLinkType, DatasourceVariableBuilder, QueryVariableBuilder,
  RowBuilder, VariableRefresh, VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { datasource } from './panels.mjs';
import { inCluster } from './promql.mjs';

const tag = 'podmeter';
// What Grafana 12.0 and later read; the SDK writes the number of the last one.
const schema = 41;

export const uids = {
  overview: 'podmeter-overview', pods: 'podmeter-pods', external: 'podmeter-external', zones: 'podmeter-zones', agents: 'podmeter-agents',
};

// chosen is a variable of label values, of which one, several or all may be chosen.
export function chosen(name, label, metric, by, { all = '.*', description } = {}) {
  const query = `label_values(${metric}${by && `{${by}}`}, ${name})`;
  const variable = new QueryVariableBuilder(name).label(label).datasource(datasource).definition(query)
    .query({ qryType: 1, query, refId: 'PrometheusVariableQueryEditor-VariableQuery' })
    .refresh(VariableRefresh.OnTimeRangeChanged).sort(VariableSort.NaturalAsc).multi(true).includeAll(true)
    .current({ selected: true, text: ['All'], value: ['$__all'] });
  if (all) variable.allValue(all);
  return description ? variable.description(description) : variable;
}

const everywhere = () => [
  new DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'),
  chosen('cluster', 'Cluster', 'podmeter_build_info', '', { description: 'The label cluster, where the scrape configuration sets it.' }),
];

export const namespaceVariable = () => chosen('namespace', 'Namespace', 'podmeter_pod_transmit_bytes_total', inCluster);

// dashboard returns one with its panels in the rows [title, panels]; the first row has no title.
export function dashboard({ uid, title, description, variables = [], links = [], time = 'now-1h', rows }) {
  const builder = new DashboardBuilder(`podmeter / ${title}`).uid(uid).description(description).tags([tag])
    .timezone('browser').time({ from: time, to: 'now' }).refresh('1m').tooltip(DashboardCursorSync.Crosshair).editable()
    .link(new DashboardLinkBuilder('podmeter').type(DashboardLinkType.Dashboards).tags([tag]).icon('external link').tooltip('')
      .url('').asDropdown(false).targetBlank(false).includeVars(true).keepTime(true));
  links.forEach((link) => builder.link(link));
  [...everywhere(), ...variables].forEach((variable) => builder.withVariable(variable));
  for (const [heading, panels] of rows) {
    if (heading) builder.withRow(new RowBuilder(heading));
    panels.forEach((panel) => builder.withPanel(panel));
  }
  const built = builder.build();
  built.schemaVersion = schema;
  // The SDK hides links in a menu.
  built.links.forEach((link) => { delete link.placement; });
  built.panels.forEach((panel, n) => { panel.id = n + 1; });
  return built;
}

// outside is a link to somebody else's page.
export const outside = (title, tooltip, url) => new DashboardLinkBuilder(title).type(DashboardLinkType.Link).icon('info').tooltip(tooltip).url(url)
  .tags([]).asDropdown(false).targetBlank(true).includeVars(false).keepTime(false);

// to is a link of a cell or a line to another dashboard, with the time, what is chosen here of the
// kept variables, and variables that become what the cell's row or the line has: variable → label.
export function to(title, uid, set, of = 'row', kept = []) {
  const field = { row: (label) => '${__data.fields.' + label + '}', line: (label) => '${__field.labels.' + label + '}' }[of];
  const parts = [
    ...['datasource', 'cluster', ...kept].map((name) => '${' + name + ':queryparam}'),
    ...Object.entries(set).map(([name, label]) => `var-${name}=${field(label)}`), '${__url_time_range}',
  ];
  return { title, url: `/d/${uid}?${parts.join('&')}`, targetBlank: false };
}
