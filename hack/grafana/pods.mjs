// SPDX-License-Identifier: Apache-2.0
//
// From a namespace down to a container: what it sends and receives, with whom, and how its TCP
// connections do.

import { chosen, dashboard, namespaceVariable, to, uids } from './dashboard.mjs';
import { colours, donut, graph, heatmap, line, last, rows, stat, table } from './panels.mjs';
import { among, busiest, inBoth, inNamespace, inPod, increase, meanRTT, meanRTTInstead, quantilesNeed, rate, ratio, retransmitted, rtt, rttBuckets, shown, sum, top } from './promql.mjs';

const both = ['transmit', 'receive'];
const bytes = (direction) => `podmeter_flow_${direction}_bytes_total`;
const packets = (direction) => `podmeter_flow_${direction}_packets_total`;
const past = { transmit: 'transmitted', receive: 'received' };

const totals = () => [
  ...both.map((direction) => stat({ title: direction === 'transmit' ? 'Transmitted' : 'Received', unit: 'Bps', w: 4, h: 4, color: colours[direction],
    description: `What the chosen pods ${direction === 'transmit' ? 'send' : 'receive'}, from the flow family, whose rows add up to the pod's own counters. Bytes have Ethernet headers in them, but those of pods in the node's network.`,
  }, line(sum([], rate(bytes(direction), inPod)), past[direction]))),
  stat({ title: 'Packets', unit: 'pps', w: 4, h: 4, color: 'blue',
    description: 'Packets in both directions. A packet is what the kernel hands over: a large TCP segment that the network card will cut counts as one.',
  }, line(both.map((direction) => sum([], rate(packets(direction), inPod))).join(' + '), 'packets')),
  stat({ title: 'TCP sent again', unit: 'percentunit', w: 4, h: 4, decimals: 2, thresholds: [[null, 'green'], [0.01, 'yellow'], [0.03, 'red']],
    description: 'The share of what the chosen pods send by TCP that they send again. Payload against whole packets.',
  }, line(retransmitted([], inPod), 'sent again')),
  stat({ title: 'TCP round-trip time', unit: 's', w: 4, h: 4, color: 'blue', text: 'value_and_name',
    description: `The round-trip time that 95 % of the samples of TCP connections are below, as the kernel smooths it, and the mean. Busy connections have more samples. ${quantilesNeed}`,
  }, [line(rtt(0.95, [], inPod), '95 %'), line(meanRTT([], inPod), 'mean')]),
  stat({ title: 'Connections failed', unit: 'short', w: 4, h: 4, decimals: 0, thresholds: [[null, 'green'], [1, 'yellow']],
    description: 'TCP connections that the chosen pods began in the time that is shown and that were not established: refused, timed out, unreachable or given up.',
  }, last(sum([], increase('podmeter_tcp_connections_failed_total', inPod)), 'failed')),
];

const throughput = () => [
  ...both.map((direction) => graph({ title: `Pods, ${past[direction]}`, unit: 'Bps', w: 12, h: 9, stack: 'normal',
    links: [to('Only ${__field.labels.pod}', uids.pods, { namespace: 'namespace', pod: 'pod' }, 'line')],
    description: `The ten pods that ${direction} most in all the time that is shown. ${direction === 'receive' ? 'What they receive from each other is in what those transmit too.' : 'A click on a line leads to the pod alone.'}`,
  }, line(top(10, ['namespace', 'pod'], bytes(direction), inPod), '{{namespace}}/{{pod}}'))),
];

const who = ['peer_kind', 'peer_namespace', 'peer', 'service', 'locality'];
const peers = () => [
  table({ title: 'Peers', w: 24, h: 11,
    labels: { peer_kind: 'Kind', peer_namespace: 'Namespace', peer: 'Peer', service: 'Service', locality: 'Locality' },
    values: [
      { name: 'Transmitted', unit: 'Bps', cell: 'gauge', min: 0 }, { name: 'Received', unit: 'Bps', cell: 'gauge', min: 0, scheme: 'continuous-greens' },
      { name: 'RTT, 95 %', unit: 's' }, { name: 'RTT, mean', unit: 's' }, { name: 'Sent again', unit: 'percentunit', cell: 'heat', decimals: 2, steps: [[null, 'transparent'], [0.01, 'yellow'], [0.03, 'red']] },
      { name: 'Failed', unit: 'short', decimals: 0 },
    ],
    linked: {
      peer_kind: [to('External destinations', uids.external, {}, 'row', ['namespace', 'pod']), to('Cross-zone cost', uids.zones, {}, 'row', ['namespace'])],
      peer_namespace: [to('Look into ${__data.fields.peer_namespace}', uids.pods, { namespace: 'peer_namespace' })],
      peer: [to('Look into ${__data.fields.peer}', uids.pods, { namespace: 'peer_namespace', workload: 'peer' })],
    },
    description: `The 200 peers with most traffic in both directions, by mean rate in the time that is shown. A peer is a workload, a Service whose backend is not certain, a node or a named range; external ones have no name here, but places on the dashboard External. Empty cells of the last four are peers without TCP. ${quantilesNeed}`,
  }, [
    ...inBoth(200, who, bytes, inPod),
    ...[rtt(0.95, who, inPod, shown), meanRTT(who, inPod, shown), `${retransmitted(who, inPod, shown)} > 0`, `${sum(who, increase('podmeter_tcp_connections_failed_total', inPod))} > 0`]
      .map((expr) => among(busiest(200, who, bytes, inPod), who, expr)),
  ].map(rows)),
];

const parts = () => [
  donut({ title: 'Protocols', unit: 'decbytes', w: 6, h: 9,
    description: 'Bytes in both directions by protocol, in the time that is shown. Other is what has another IP protocol, or no IP header.',
  }, last(both.map((direction) => sum(['protocol'], increase(bytes(direction), inPod))).join(' + '), '{{protocol}}')),
  graph({ title: 'Containers, transmitted', unit: 'Bps', w: 9, h: 9, stack: 'normal',
    description: 'By container, ten at most. Of a pod with several it is that of the socket; empty is what is not certain, and what is no TCP or UDP.',
  }, line(top(10, ['namespace', 'pod', 'container'], bytes('transmit'), inPod), '{{pod}} {{container}}')),
  graph({ title: 'Services, transmitted', unit: 'Bps', w: 9, h: 9, stack: 'normal',
    description: 'What is sent by way of a Service, by its name, ten at most. The backend is a peer above. Connections that are translated where podmeter does not see it (a load balancer at the socket) have no Service.',
    noValue: 'No Service was addressed',
  }, line(top(10, ['peer_namespace', 'service'], bytes('transmit'), `${inPod}, service!=""`), '{{peer_namespace}}/{{service}}')),
  graph({ title: 'Packets', unit: 'pps', w: 12, h: 8, legend: 'list', below: '/received/',
    description: 'Packets by protocol, received ones below zero. Large TCP segments count once.',
  }, both.map((direction) => line(sum(['protocol'], rate(packets(direction), inPod)), `{{protocol}} ${past[direction]}`))),
  graph({ title: 'Mean size of a packet', unit: 'decbytes', w: 12, h: 8, legend: 'list', min: 0,
    description: 'Bytes by packets. More than the MTU is what offloads merged or did not cut yet.',
  }, both.map((direction) => line(ratio(sum(['protocol'], rate(bytes(direction), inPod)), sum(['protocol'], rate(packets(direction), inPod))), `{{protocol}} ${past[direction]}`))),
];

const peer = ['peer_kind', 'peer_namespace', 'peer'];
const health = () => [
  graph({ title: 'TCP round-trip time', unit: 's', w: 12, h: 8, legend: 'list', min: 0,
    description: `Quantiles of the smoothed round-trip time of TCP connections, interpolated within buckets, a factor of 1.4 wide, or of four if they are classic ones, and its mean. Weighted by samples: busy connections have more of them. ${quantilesNeed}`,
  }, [...[0.5, 0.95, 0.99].map((q) => line(rtt(q, [], inPod), `${q * 100} %`)), line(meanRTT([], inPod), 'mean')]),
  heatmap({ title: 'TCP round-trip time, samples', unit: 's', w: 12, h: 8,
    description: 'Samples of the smoothed round-trip time by bucket. It needs a Prometheus that scrapes native histograms (scrape_native_histograms), or agents with --rtt-classic-buckets.',
    noValue: 'Scrape native histograms, or set --rtt-classic-buckets',
  }, rttBuckets(inPod)),
  graph({ title: 'RTT by peer, 95 %', unit: 's', w: 8, h: 8, legend: 'list', min: 0,
    description: `The round-trip time that 95 % of the samples are below, for each peer. External peers are one line. ${quantilesNeed}`,
  }, [
    line(rtt(0.95, peer, inPod), '{{peer_kind}} {{peer_namespace}}/{{peer}}'),
    line(meanRTTInstead(0.95, peer, inPod), '{{peer_kind}} {{peer_namespace}}/{{peer}}, mean'),
  ]),
  graph({ title: 'TCP sent again, by workload', unit: 'percentunit', w: 8, h: 8, legend: 'list', min: 0,
    description: 'The share of what a workload sends by TCP that it sends again. Loss probes and SYNs that are repeated are among it.',
  }, line(retransmitted(['namespace', 'workload'], inPod), '{{namespace}}/{{workload}}')),
  graph({ title: 'TCP connections', unit: 'cps', w: 8, h: 8, legend: 'list', min: 0, colours: { opened: 'green', failed: colours.failed },
    description: 'Connections that were established, accepted ones included, and those that the chosen pods began and that were not. One between two of the chosen pods is opened twice.',
  }, ['opened', 'failed'].map((what) => line(sum([], rate(`podmeter_tcp_connections_${what}_total`, inPod)), what))),
];

const flow = 'podmeter_flow_transmit_bytes_total';
const variables = () => [
  namespaceVariable(),
  chosen('workload', 'Workload', flow, inNamespace, { description: 'The pod\'s controller.' }),
  chosen('pod', 'Pod', flow, `${inNamespace}, workload=~"$workload"`),
  chosen('container', 'Container', flow, `${inNamespace}, workload=~"$workload", pod=~"$pod", container!=""`),
];

export const pods = () => dashboard({
  uid: uids.pods, title: 'Namespace, pod, container', description: 'Traffic of chosen namespaces, workloads, pods or containers: peers, protocols and TCP health.',
  variables: variables(),
  rows: [['', totals()], ['', throughput()], ['Peers', peers()], ['Containers, Services, protocols', parts()], ['TCP health', health()]],
});
