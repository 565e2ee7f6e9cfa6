// SPDX-License-Identifier: Apache-2.0
//
// Podmeter itself: whether all is exact, all is metered, and what that takes.

import { chosen, dashboard, uids } from './dashboard.mjs';
import { colours, graph, last, line, rows, stat, table, wrongFrom } from './panels.mjs';
import { inCluster, orZero, rate, shown, sum } from './promql.mjs';

const here = `${inCluster}, job=~"$job", instance=~"$instance"`;
const grown = (name, more = '') => `increase(${name}{${here}${more}}[${shown}])`;
const perSecond = (name, more = '') => rate(name, `${here}${more}`);
const age = (name) => `time() - (podmeter_${name}_timestamp_seconds{${here}} > 0)`;

const totals = () => [
  stat({ title: 'Agents up', unit: 'short', w: 3, h: 4, color: 'green',
    description: 'Agents that Prometheus scrapes and that answer. Those that write themselves (--remote-write-url) are among them, as they write up with each sample.',
  }, line(`count(up{${here}} == 1)`, 'up')),
  stat({ title: 'Agents down', unit: 'short', w: 3, h: 4, thresholds: wrongFrom(1), graph: false,
    description: 'Agents that Prometheus scrapes and that do not answer. One that writes itself and is gone is in neither number. Their programs count on, and what they counted comes with their next scrape.',
  }, last(orZero(`count(up{${here}} == 0)`), 'down')),
  stat({ title: 'Conservation error', unit: 'decbytes', w: 3, h: 4, thresholds: wrongFrom(1), graph: false,
    description: 'Bytes by which totals and flows disagreed in the time that is shown. It must be 0: anything else is a bug of podmeter.',
  }, last(sum([], grown('podmeter_conservation_error_bytes_total')), 'conservation error')),
  stat({ title: 'Lost', unit: 'decbytes', w: 3, h: 4, thresholds: wrongFrom(1, 'orange'), graph: false,
    description: 'Counted bytes that are on no series, in the time that is shown, as their interface vanished and its pod was never known.',
  }, last(sum([], grown('podmeter_lost_bytes_total')), 'lost')),
  stat({ title: 'Unattributed', unit: 'percentunit', w: 3, h: 4, decimals: 2, thresholds: [[null, 'green'], [0.01, 'yellow'], [0.1, 'red']], graph: false,
    description: 'The share of all bytes that are on their pod\'s series, but on no peer\'s, in the time that is shown. The row below tells why.',
  }, last(`(${orZero(`sum(increase(podmeter_flow_transmit_bytes_total{${here}, peer_kind="unattributed"}[${shown}]))`)}) / (sum(increase(podmeter_pod_transmit_bytes_total{${here}}[${shown}])) > 0)`, 'unattributed')),
  stat({ title: 'Pods unmetered', unit: 'short', w: 3, h: 4, thresholds: wrongFrom(1), graph: false,
    description: 'Pods of the nodes that have agents and whose traffic nobody counts. podmeter status on the node says why.',
  }, last(sum([], `podmeter_pods{${here}, state="unmetered"}`), 'unmetered')),
  stat({ title: 'Fullest family', unit: 'percentunit', w: 3, h: 4, decimals: 0, thresholds: [[null, 'green'], [0.7, 'yellow'], [0.95, 'red']], graph: false,
    description: 'Label sets as a share of the limit, of the family and the agent that is nearest to it. At 100 % new ones are folded into other. A pod takes a quarter at most.',
  }, last(`max(podmeter_series{${here}} / podmeter_series_limit{${here}})`, 'fullest')),
  stat({ title: 'Oldest drain', unit: 's', w: 3, h: 4, decimals: 0, thresholds: [[null, 'green'], [30, 'yellow'], [60, 'red']], graph: false,
    description: 'How long ago the last drain ended, of the agent where that is longest. More than 30 s beyond --drain-interval makes an agent unhealthy.',
  }, last(`max(${age('last_drain')})`, 'oldest drain')),
];

const each = () => [
  table({ title: 'Agents', w: 24, h: 8, sort: 'Memory', labels: { cluster: 'Cluster', instance: 'Agent', version: 'Version' },
    values: [
      { name: 'Memory', unit: 'bytes', cell: 'gauge', min: 0 }, { name: 'CPU', unit: 'percentunit', decimals: 2 },
      { name: 'Series, of the limit', unit: 'percentunit', decimals: 0, cell: 'heat', steps: [[null, 'transparent'], [0.7, 'yellow'], [0.95, 'red']] },
      { name: 'Interfaces', unit: 'short', decimals: 0 }, { name: 'Unmetered pods', unit: 'short', decimals: 0, cell: 'heat', steps: [[null, 'transparent'], [1, 'red']] },
      { name: 'Unattributed', unit: 'decbytes', decimals: 1 }, { name: 'Last drain', unit: 's', decimals: 0 },
    ],
    description: 'Each agent. CPU is the mean of the time that is shown, of one core; memory is resident, without that of the maps in the kernel; unattributed bytes are those that found no room in the maps.',
  }, [
    `process_resident_memory_bytes{${here}}`, `rate(process_cpu_seconds_total{${here}}[${shown}])`, `max by (cluster, job, instance) (podmeter_series{${here}} / podmeter_series_limit{${here}})`,
    `sum by (cluster, job, instance) (podmeter_interfaces{${here}})`, `sum by (cluster, job, instance) (podmeter_pods{${here}, state="unmetered"})`,
    `${grown('podmeter_residue_bytes_total')} + ${grown('podmeter_unplaced_bytes_total')}`, age('last_drain'),
  ].map((expr) => rows(`sum by (cluster, instance, version) ((${expr}) * on (cluster, job, instance) group_left (version) podmeter_build_info{${here}})`))),
];

const exactness = () => [
  graph({ title: 'Bytes without a peer, and why', unit: 'Bps', w: 12, h: 9, legend: 'list', min: 0,
    description: 'Evicted: the maps were full and the kernel made room. Not placed: they were full and it could not. Both mean that --map-memory is too small. Folded: a series limit was reached. Lost: on no series at all. All 0 is as it should be.',
  }, [
    line(sum([], perSecond('podmeter_residue_bytes_total')), 'evicted'), line(sum([], perSecond('podmeter_unplaced_bytes_total')), 'not placed'),
    line(sum(['family'], perSecond('podmeter_folded_bytes_total')), 'folded, {{family}}'), line(sum(['reason'], perSecond('podmeter_lost_bytes_total')), 'lost, {{reason}}'),
  ]),
  graph({ title: 'Unattributed, by node', unit: 'Bps', w: 12, h: 9, legend: 'list', min: 0,
    description: 'What pods send that is in no flow: evicted, not placed, passed before the programs were attached, or kept from them by others\' programs. It is on its pod\'s series all the same.',
  }, line(sum(['cluster', 'instance'], perSecond('podmeter_flow_transmit_bytes_total', ', peer_kind="unattributed"')), '{{instance}} {{cluster}}')),
];

const differences = sum(['cluster', 'namespace', 'pod', 'direction'], `podmeter_interface_difference_packets{${here}}`);
const coverage = () => [
  graph({ title: 'Interfaces by state', unit: 'short', w: 8, h: 8, stack: 'normal', decimals: 0, colours: { attached: 'green', partial: 'orange', shadowed: 'red', bypassed: 'orange', unknown: 'red', differs: 'yellow', settling: 'blue', gone: '#808080' },
    description: 'Interfaces of pods. Attached is exact; partial, shadowed and bypassed are exact too, but not all by flow; unknown may miss packets. docs/METRICS.md has them all.',
  }, line(sum(['state'], `podmeter_interfaces{${here}}`), '{{state}}')),
  graph({ title: 'Pods by state', unit: 'short', w: 8, h: 8, stack: 'normal', decimals: 0, colours: { metered: 'green', partly: 'orange', unmetered: 'red', host_network: 'blue' },
    description: 'Pods of the nodes that have agents. Host_network are those in the node\'s network that are not metered at their cgroup.',
  }, line(sum(['state'], `podmeter_pods{${here}}`), '{{state}}')),
  table({ title: 'Interfaces that count otherwise', w: 8, h: 8, labels: { cluster: 'Cluster', namespace: 'Namespace', pod: 'Pod', direction: 'Direction' },
    values: [{ name: 'Difference', unit: 'short', decimals: 0 }],
    description: 'Packets that a pod\'s interface counts beyond podmeter since the attachment, or less where it is below 0: offloads, XDP, drops. The README has a table of causes. Those farthest from 0, ten to either side.',
  }, rows(`topk(10, ${differences}) or bottomk(10, ${differences})`)),
];

const drains = () => [
  graph({ title: 'Duration of drains', unit: 's', w: 8, h: 8, legend: 'list', min: 0,
    description: 'How long it takes to read the maps, the grace period of the kernel included, in which nothing is held up. Counting goes on in the other set of maps meanwhile.',
  }, [0.5, 0.99].map((q) => line(`histogram_quantile(${q}, sum by (le) (${perSecond('podmeter_drain_duration_seconds_bucket')})) >= 0 or histogram_quantile(${q}, sum(${perSecond('podmeter_drain_duration_seconds')})) >= 0`, `${q * 100} %`))),
  graph({ title: 'Pressure on the maps', unit: 'short', w: 8, h: 8, legend: 'list', min: 0,
    description: 'Flow entries that a drain reads, in the mean. Each flow takes one for each CPU that saw it; what does not fit is evicted, and is in the graph of bytes without a peer. A drain comes early when a map fills up.',
  }, line(`${sum(['cluster', 'instance'], perSecond('podmeter_drained_entries_total'))} / (sum by (cluster, instance) (${perSecond('podmeter_drain_duration_seconds_count')}) > 0 or sum by (cluster, instance) (histogram_count(${perSecond('podmeter_drain_duration_seconds')})) > 0)`, '{{instance}} {{cluster}}')),
  graph({ title: 'Packets by what parsing them gave', unit: 'pps', w: 8, h: 8, legend: 'list',
    description: 'Packets of pods and uplinks by how the walk over their headers ended. Malformed and truncated ones are counted too, with what is known of them. docs/PARSER.md has the outcomes.',
  }, line(`${sum(['outcome'], perSecond('podmeter_packets_parsed_total'))} > 0`, '{{outcome}}')),
  graph({ title: 'Waiting for their pod', unit: 'decbytes', w: 8, h: 8, legend: 'list', min: 0,
    description: 'Bytes of interfaces whose pod is not known yet. They come at once when it is, as one step.',
  }, line(sum(['cluster', 'instance'], `podmeter_unbound_bytes{${here}}`), '{{instance}} {{cluster}}')),
  graph({ title: 'Connections and Services', unit: 'ops', w: 8, h: 8, legend: 'list', min: 0,
    description: 'Ends of TCP connections whose health was read, by what came of them (no_pod are the node\'s own), and lookups of the backends of Services.',
  }, [line(sum(['result'], perSecond('podmeter_drained_connections_total')), 'connection, {{result}}'), line(sum(['result'], perSecond('podmeter_service_lookups_total')), 'Service, {{result}}')]),
  graph({ title: 'Errors', unit: 'ops', w: 8, h: 8, legend: 'list', min: 0,
    description: 'Scrapes whose traffic had to be left out, checkpoints that could not be written (a restart would not know what came since), and sockets that found no room.',
  }, [
    line(sum([], perSecond('podmeter_snapshot_errors_total')), 'snapshots'), line(sum([], perSecond('podmeter_checkpoint_errors_total')), 'checkpoints'),
    line(sum(['outcome'], perSecond('podmeter_sockets_total', ', outcome!="recorded"')), 'sockets, {{outcome}}'),
  ]),
];

const cost = () => [
  graph({ title: 'CPU', unit: 'percentunit', w: 8, h: 8, legend: 'list', min: 0,
    description: 'Of one core, by agent. What the programs in the kernel take is in nobody\'s process: docs/BENCHMARKS.md has it for each packet.',
  }, line(`${perSecond('process_cpu_seconds_total')}`, '{{instance}} {{cluster}}')),
  graph({ title: 'Memory', unit: 'bytes', w: 8, h: 8, legend: 'list', min: 0,
    description: 'Resident memory by agent, without that of the maps in the kernel (--map-memory), which a container\'s limit counts too.',
  }, line(`process_resident_memory_bytes{${here}}`, '{{instance}} {{cluster}}')),
  graph({ title: 'Series, of their limit', unit: 'percentunit', w: 8, h: 8, legend: 'list', min: 0, thresholds: [[null, 'transparent'], [1, 'red']],
    description: 'Label sets of each family as a share of its limit, of the agent that has most. At 100 % new ones are folded.',
  }, line(`max by (family) (podmeter_series{${here}} / podmeter_series_limit{${here}})`, '{{family}}')),
  graph({ title: 'Samples of a scrape', unit: 'short', w: 12, h: 7, legend: 'list', min: 0,
    description: 'What Prometheus stores at each scrape, by agent. TCP health has 21 for each row of flows. Of agents that write themselves there is none.',
  }, line(`scrape_samples_post_metric_relabeling{${here}}`, '{{instance}} {{cluster}}')),
  graph({ title: 'Duration of a scrape', unit: 's', w: 12, h: 7, legend: 'list', min: 0,
    description: 'How long a scrape takes. It drains the maps first if the last drain is over a second old, with the kernel\'s grace period.',
  }, line(`scrape_duration_seconds{${here}}`, '{{instance}} {{cluster}}')),
];

const identity = () => [
  graph({ title: 'Age of identity', unit: 's', w: 12, h: 7, legend: 'list', min: 0,
    description: 'How long ago the API server was last heard of, by agent: it speaks about once a minute. What was known stays in use meanwhile. Absent for sources that cannot be out of date.',
  }, line(age('identity_last_update'), '{{instance}} {{cluster}}')),
  graph({ title: 'Known objects', unit: 'short', w: 12, h: 7, legend: 'list', min: 0,
    description: 'Pods, Services, nodes and named ranges that the agents know, the most of any agent. With --scope node pods are those of its own node.',
  }, line(`max by (kind) (podmeter_identity_objects{${here}})`, '{{kind}}')),
];

const writing = () => [
  graph({ title: 'Remote write, requests', unit: 'reqps', w: 8, h: 7, legend: 'list', min: 0, colours: { sent: 'green', retried: 'yellow', refused: 'red', dropped: colours.failed },
    description: 'Of agents with --remote-write-url, by outcome. Refused and dropped samples are gone, while the counters after them are complete all the same.',
  }, line(sum(['outcome'], perSecond('podmeter_remote_write_requests_total')), '{{outcome}}')),
  graph({ title: 'Remote write, waiting on disk', unit: 'bytes', w: 8, h: 7, legend: 'list', min: 0,
    description: 'What waits for a receiver, up to --remote-write-spool-limit for each; beyond it the eldest is given up.',
  }, line(sum(['cluster', 'instance', 'receiver'], `podmeter_remote_write_spool_bytes{${here}}`), '{{instance}} {{cluster}} {{receiver}}')),
  graph({ title: 'Remote write, last success', unit: 's', w: 8, h: 7, legend: 'list', min: 0,
    description: 'How long ago a receiver last took something. Of what comes by that way itself it shows no outage until it is over.',
  }, line(`${age('remote_write_last_success')}`, '{{instance}} {{cluster}} {{receiver}}')),
];

const geoip = () => [
  graph({ title: 'geoip, age of the answer', unit: 's', w: 8, h: 7, legend: 'list', min: 0, thresholds: [[null, 'transparent'], [300, 'red']],
    description: 'Of podmeter geoip: how old is what geo_ip shows. It grows while Prometheus gives no answer. The variables of job and agent do not choose here.',
  }, line(`podmeter_geoip_answer_age_seconds{${inCluster}}`, '{{instance}} {{cluster}}')),
  graph({ title: 'geoip, queries', unit: 'ops', w: 8, h: 7, legend: 'list', min: 0, colours: { answered: 'green' },
    description: 'Queries of podmeter geoip to Prometheus, by what came of them. Anything but answered leaves the last answer in place.',
  }, line(sum(['result'], rate('podmeter_geoip_queries_total', inCluster)), '{{result}}')),
  graph({ title: 'geoip, rows', unit: 'ops', w: 8, h: 7, legend: 'list', min: 0, colours: { placed: 'green' },
    description: 'Rows of the answers: placed, without a place, or left out, as they have no address or one that is not public.',
  }, line(sum(['result'], rate('podmeter_geoip_rows_total', inCluster)), '{{result}}')),
];

const any = 'podmeter_build_info';

export const agents = () => dashboard({
  uid: uids.agents, title: 'podmeter itself', description: 'Whether podmeter is exact and meters everything, and what it takes.',
  variables: [
    // Of all that Prometheus scrapes: All are those that are podmeter's.
    chosen('job', 'Job', any, inCluster, { all: '' }),
    chosen('instance', 'Agent', any, `${inCluster}, job=~"$job"`),
  ],
  rows: [['', totals()], ['', each()], ['Exactness', exactness()], ['Coverage', coverage()], ['Drains', drains()], ['Cost', cost()],
    ['Identity', identity()], ['Remote write', writing()], ['Places', geoip()]],
});
