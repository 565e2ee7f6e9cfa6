// SPDX-License-Identifier: Apache-2.0
//
// The first dashboard: how much there is, who talks to whom, how far it goes, and how well.

import { dashboard, namespaceVariable, to, uids } from './dashboard.mjs';
import { colours, donut, graph, last, line, matrix, rows, stat, table, wrongFrom } from './panels.mjs';
import { edge, inBoth, inCluster, inNamespace, meanRTT, orZero, quantilesNeed, rate, retransmitted, rtt, shown, sum, top, topk } from './promql.mjs';

const sent = (selector, ...range) => rate('podmeter_flow_transmit_bytes_total', selector, ...range);
const edges = `${inNamespace}, peer_kind="pod"`;
const toNamespace = (of) => [to('Look into ${__' + (of === 'row' ? 'data.fields' : 'field.labels') + '.namespace}', uids.pods, { namespace: 'namespace' }, of)];

const totals = () => [
  stat({ title: 'Transmitted', unit: 'Bps', w: 3, h: 4, color: colours.transmit,
    description: 'What pods send, counted where each pod\'s interface ends on the node. Traffic between two pods is in Transmitted of the one and in Received of the other: do not add the two.',
  }, line(sum([], rate('podmeter_pod_transmit_bytes_total', inNamespace)), 'transmitted')),
  stat({ title: 'Received', unit: 'Bps', w: 3, h: 4, color: colours.receive,
    description: 'What is handed to pods. It differs from Transmitted by traffic with the outside and with nodes, and by what is lost on the way.',
  }, line(sum([], rate('podmeter_pod_receive_bytes_total', inNamespace)), 'received')),
  stat({ title: 'To the internet', unit: 'Bps', w: 3, h: 4, color: 'purple',
    description: 'What pods send to addresses outside of the cluster that are neither private nor named ranges of yours. What is received from there is on the dashboard External.',
  }, line(orZero(sum([], sent(`${inNamespace}, peer_kind="external"`))), 'to the internet')),
  stat({ title: 'Across zones', unit: 'Bps', w: 3, h: 4, color: 'orange',
    description: 'What pods send to another availability zone. It needs the label topology.kubernetes.io/zone on the nodes; without it the locality is unknown.',
  }, line(orZero(sum([], sent(`${inNamespace}, locality="cross_zone"`))), 'across zones')),
  stat({ title: 'TCP sent again', unit: 'percentunit', w: 3, h: 4, decimals: 2, thresholds: [[null, 'green'], [0.01, 'yellow'], [0.03, 'red']],
    description: 'Bytes that TCP retransmits, as a share of all that it sends. Payload against whole packets, so that it is a little less than the share of segments.',
  }, line(retransmitted([], inNamespace), 'sent again')),
  stat({ title: 'TCP round-trip time', unit: 's', w: 3, h: 4, color: 'blue', text: 'value_and_name',
    description: `The round-trip time that 95 % of the samples of TCP connections are below, as the kernel smooths it, and the mean. Busy connections have more samples. ${quantilesNeed}`,
  }, [line(rtt(0.95, [], inNamespace), '95 %'), line(meanRTT([], inNamespace), 'mean')]),
  stat({ title: 'Pods', unit: 'short', w: 3, h: 4, color: 'blue',
    description: 'Pods that have series. Those that ended are among them for the minutes of --series-grace.',
  }, line(`count(count by (namespace, pod) (podmeter_pod_transmit_bytes_total{${inNamespace}}))`, 'pods')),
  stat({ title: 'Conservation error', unit: 'decbytes', w: 3, h: 4, thresholds: wrongFrom(1),
    description: 'Bytes by which totals and flows disagreed in the time that is shown, of all agents. It must be 0: anything else is a bug of podmeter.',
  }, last(`sum(increase(podmeter_conservation_error_bytes_total{${inCluster}}[${shown}]))`, 'conservation error')),
];

const throughput = () => [
  graph({ title: 'Throughput', unit: 'Bps', w: 12, h: 9, legend: 'list', below: '/^received/', colours: { 'transmitted': colours.transmit, 'received': colours.receive },
    description: 'All that pods send, and below zero all that they receive. Counters move at each drain, so that a range of less than two scrapes would show steps.',
  }, [
    line(sum([], rate('podmeter_pod_transmit_bytes_total', inNamespace)), 'transmitted'),
    line(sum([], rate('podmeter_pod_receive_bytes_total', inNamespace)), 'received'),
  ]),
  graph({ title: 'Top namespaces, transmitted', unit: 'Bps', w: 12, h: 9, stack: 'normal', links: toNamespace('line'),
    description: 'The ten namespaces that send most in all the time that is shown. Transmit alone, so that a byte between two pods counts once.',
  }, line(top(10, ['namespace'], 'podmeter_pod_transmit_bytes_total', inNamespace), '{{namespace}}')),
];

const whom = () => [
  matrix({ title: 'Who sends to whom', unit: 'Bps', w: 16, h: 11, row: 'from', column: 'to', corner: 'from ↓   to →', scheme: 'continuous-BlYlRd',
    description: 'The mean rate of the 100 busiest edges between two workloads. A row sends to a column. Each edge is taken from its sender alone, as two pods of one cluster both have it on their series.',
  }, rows(topk(100, sum(['from', 'to'], edge(sent(edges, shown)))))),
  donut({ title: 'Locality', unit: 'decbytes', w: 4, h: 11, colours: colours.locality,
    description: 'How far goes what pods send, in the time that is shown: to the same node, the same zone, another zone, out of the cluster. Unknown is where no zone is known, or the peer.',
  }, last(sum(['locality'], `increase(podmeter_flow_transmit_bytes_total{${inNamespace}}[${shown}])`), '{{locality}}')),
  donut({ title: 'Kind of peer', unit: 'decbytes', w: 4, h: 11,
    description: 'What pods send, by what they send it to; each byte has one kind. Unattributed is counted, but its flow is not known; other is what a series limit folded.',
  }, last(sum(['peer_kind'], `increase(podmeter_flow_transmit_bytes_total{${inNamespace}}[${shown}])`), '{{peer_kind}}')),
];

const busiest = () => [
  table({ title: 'Edges', w: 12, h: 10, labels: { namespace: 'Namespace', workload: 'Workload', peer_namespace: 'To namespace', peer: 'To' },
    values: [{ name: 'Transmitted', unit: 'Bps', cell: 'gauge', min: 0 }],
    linked: { namespace: toNamespace('row'), workload: [to('Look into ${__data.fields.workload}', uids.pods, { namespace: 'namespace', workload: 'workload' })],
      peer: [to('Look into ${__data.fields.peer}', uids.pods, { namespace: 'peer_namespace', workload: 'peer' })] },
    description: 'The same as a list: the mean rate of the 100 busiest edges between two workloads, from the sender\'s series alone. A workload is a pod\'s controller.',
  }, rows(topk(100, sum(['namespace', 'workload', 'peer_namespace', 'peer'], sent(edges, shown))))),
  table({ title: 'Pods', w: 12, h: 10, labels: { namespace: 'Namespace', pod: 'Pod' },
    values: [{ name: 'Transmitted', unit: 'Bps', cell: 'gauge', min: 0 }, { name: 'Received', unit: 'Bps', cell: 'gauge', min: 0, scheme: 'continuous-greens' }],
    linked: { namespace: toNamespace('row'), pod: [to('Look into ${__data.fields.pod}', uids.pods, { namespace: 'namespace', pod: 'pod' })] },
    description: 'The mean rate of the 100 pods with most traffic in both directions in the time that is shown. These are exact whatever happens to flows.',
  }, inBoth(100, ['namespace', 'pod'], (direction) => `podmeter_pod_${direction}_bytes_total`, inNamespace).map(rows)),
];

const distance = () => [
  graph({ title: 'Locality over time', unit: 'Bps', w: 12, h: 8, stack: 'normal', colours: colours.locality,
    description: 'How far goes what pods send. What crosses zones is on the dashboard Cross-zone cost.',
  }, line(sum(['locality'], sent(inNamespace)), '{{locality}}')),
  graph({ title: 'Top countries, transmitted', unit: 'Bps', w: 12, h: 8, stack: 'normal', links: [to('On the map', uids.external, {}, 'line')],
    description: 'The ten countries that most is sent to in all the time that is shown. Empty is a country that no database knows, other what a series limit folded. It needs a database of places (--geoip).',
  }, line(top(10, ['country'], 'podmeter_external_transmit_bytes_total', inNamespace), '{{country}}')),
];

const health = () => [
  graph({ title: 'TCP round-trip time', unit: 's', w: 8, h: 8, legend: 'list', min: 0,
    description: `Quantiles of the smoothed round-trip time of TCP connections and its mean, over all samples: a busy connection has more of them. Needs --sockets. ${quantilesNeed}`,
  }, [...[0.5, 0.95, 0.99].map((q) => line(rtt(q, [], inNamespace), `${q * 100} %`)), line(meanRTT([], inNamespace), 'mean')]),
  graph({ title: 'TCP sent again, by namespace', unit: 'percentunit', w: 8, h: 8, legend: 'list', min: 0,
    description: 'The share of what a namespace\'s pods send by TCP that they send again. Payload against whole packets. The receiver\'s losses are on the sender\'s row.',
  }, line(retransmitted(['namespace'], inNamespace), '{{namespace}}')),
  graph({ title: 'TCP connections', unit: 'cps', w: 8, h: 8, legend: 'list', min: 0, colours: { opened: 'green', failed: colours.failed },
    description: 'Connections that were established, at either end, and those that a pod began and that were not: refused, timed out, unreachable or given up.',
  }, ['opened', 'failed'].map((what) => line(sum([], rate(`podmeter_tcp_connections_${what}_total`, inNamespace)), what))),
  table({ title: 'Packets lost on an edge', w: 12, h: 8, labels: { cluster: 'Cluster', namespace: 'Namespace', workload: 'Workload', peer_namespace: 'To namespace', peer: 'To' },
    values: [{ name: 'Lost', unit: 'percentunit', cell: 'heat', decimals: 3, steps: [[null, 'transparent'], [0.001, 'yellow'], [0.01, 'red']] }, { name: 'Sent', unit: 'short' }],
    description: 'Packets that one end sent and the other end was not handed, in the last 15 minutes of the time that is shown. Of TCP only what stays on a node can be compared, as offloads cut and merge its packets on a wire. From the rules of deploy/prometheus/rules/traffic.rules.yml, which Prometheus has to load.',
  }, ['edge:podmeter_lost_packets:ratio15m', 'edge:podmeter_sent_packets:increase15m'].map((rule) => rows(sum(['cluster', 'namespace', 'workload', 'peer_namespace', 'peer'], `${rule}{${inNamespace}}`)))),
  table({ title: 'Edges that send again', w: 12, h: 8, labels: { namespace: 'Namespace', workload: 'Workload', peer_kind: 'Kind', peer_namespace: 'To namespace', peer: 'To' },
    values: [{ name: 'Sent again', unit: 'percentunit', cell: 'heat', decimals: 3, steps: [[null, 'transparent'], [0.01, 'yellow'], [0.03, 'red']] }],
    linked: { workload: [to('Look into ${__data.fields.workload}', uids.pods, { namespace: 'namespace', workload: 'workload' })] },
    description: 'The 50 edges whose sender repeats most of its TCP payload, as a share of what it sends to that peer. An edge with little traffic reaches a high share by few losses.',
  }, rows(topk(50, `${retransmitted(['namespace', 'workload', 'peer_kind', 'peer_namespace', 'peer'], inNamespace, shown)} > 0`))),
];

export const overview = () => dashboard({
  uid: uids.overview, title: 'Cluster overview', description: 'Traffic of all pods: how much, who with whom, how far and how well.',
  variables: [namespaceVariable()],
  rows: [['', totals()], ['', throughput()], ['', whom()], ['Busiest', busiest()], ['How far', distance()], ['How well', health()]],
});
