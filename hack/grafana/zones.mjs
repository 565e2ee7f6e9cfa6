// SPDX-License-Identifier: Apache-2.0
//
// What crosses zones, and what that costs.

import { TextBoxVariableBuilder } from '@grafana/grafana-foundation-sdk/dashboard';
import { dashboard, namespaceVariable, to, uids } from './dashboard.mjs';
import { colours, donut, graph, last, line, rows, stat, table } from './panels.mjs';
import { inNamespace, increase, orZero, rate, ratio, shown, sum, top, topk } from './promql.mjs';

const sent = 'podmeter_flow_transmit_bytes_total';
const crossing = `${inNamespace}, locality="cross_zone"`;
// Bytes as money, and a rate as money in 30 days.
const money = (bytes) => `(${bytes}) / 1e9 * $price`;
const monthly = (perSecond) => `(${perSecond}) * 2592000 / 1e9 * $price`;

const price = 'The price is a variable, for 10^9 bytes that are sent. Of a provider that charges both ends enter the sum of both prices: each byte between two pods is counted once, at its sender.';

const totals = () => [
  stat({ title: 'Across zones', unit: 'Bps', w: 4, h: 4, color: 'orange',
    description: 'What pods send to another zone. It needs the label topology.kubernetes.io/zone on the nodes.',
  }, line(orZero(sum([], rate(sent, crossing))), 'across zones')),
  stat({ title: 'Share of all', unit: 'percentunit', w: 4, h: 4, decimals: 1, thresholds: [[null, 'green'], [0.3, 'yellow'], [0.6, 'red']],
    description: 'What crosses zones, as a share of what pods send to pods and nodes whose zone is known.',
  }, line(ratio(`(${orZero(sum([], rate(sent, crossing)))})`, sum([], rate(sent, `${inNamespace}, locality=~"same_node|same_zone|cross_zone"`))), 'share')),
  stat({ title: 'Sent', unit: 'decbytes', w: 4, h: 4, color: 'orange', graph: false,
    description: 'What was sent to another zone in the time that is shown. Bytes are those of packets with Ethernet header, some hundredths more than what is charged.',
  }, last(sum([], increase(sent, crossing)), 'sent')),
  stat({ title: 'Cost, $currency', unit: 'locale', w: 4, h: 4, decimals: 2, color: 'yellow', graph: false,
    description: `What that costs. ${price}`,
  }, last(money(sum([], increase(sent, crossing))), 'cost')),
  stat({ title: 'A month of it, $currency', unit: 'locale', w: 4, h: 4, decimals: 2, color: 'yellow', graph: false,
    description: `The mean of the time that is shown, kept up for 30 days. Choose a whole week for a figure that means something. ${price}`,
  }, last(monthly(sum([], rate(sent, crossing, shown))), 'a month')),
  stat({ title: 'Edges', unit: 'short', w: 4, h: 4, color: 'blue', graph: false,
    description: 'Pairs of workloads of which the one sends to the other in another zone, in the time that is shown.',
  }, last(`count(${sum(['namespace', 'workload', 'peer_namespace', 'peer'], increase(sent, `${crossing}, peer_kind="pod"`))} > 0)`, 'edges')),
];

const overTime = () => [
  graph({ title: 'Namespaces, across zones', unit: 'Bps', w: 14, h: 9, stack: 'normal', links: [to('Look into ${__field.labels.namespace}', uids.pods, { namespace: 'namespace' }, 'line')],
    description: 'The ten namespaces that send most to other zones in all the time that is shown.',
  }, line(top(10, ['namespace'], sent, crossing), '{{namespace}}')),
  graph({ title: 'A month at this rate, $currency', unit: 'locale', w: 10, h: 9, decimals: 2, stack: 'normal',
    description: `What each of these namespaces would cost in 30 days, if it went on as at that moment. ${price}`,
  }, line(monthly(top(10, ['namespace'], sent, crossing)), '{{namespace}}')),
];

const cost = [
  { name: 'A month', unit: 'locale', cell: 'gauge', decimals: 2, min: 0, scheme: 'continuous-YlRd' }, { name: 'Cost', unit: 'locale', decimals: 2 },
  { name: 'Sent', unit: 'decbytes' }, { name: 'Rate', unit: 'Bps' },
];
const costs = (count, by, selector) => [
  monthly(topk(count, sum(by, rate(sent, selector, shown)))), money(topk(count, sum(by, increase(sent, selector)))),
  topk(count, sum(by, increase(sent, selector))), topk(count, sum(by, rate(sent, selector, shown))),
].map(rows);

const who = () => [
  table({ title: 'Workloads', w: 10, h: 11, values: cost, labels: { namespace: 'Namespace', workload: 'Workload' },
    linked: { workload: [to('Look into ${__data.fields.workload}', uids.pods, { namespace: 'namespace', workload: 'workload' })] },
    description: `The 100 workloads that send most to other zones: what 30 days of the mean would cost, what the time that is shown did, in $currency, and the bytes. ${price}`,
  }, costs(100, ['namespace', 'workload'], crossing)),
  table({ title: 'Edges', w: 14, h: 11, values: cost, labels: { namespace: 'Namespace', workload: 'Workload', peer_kind: 'Kind', peer_namespace: 'To namespace', peer: 'To' },
    linked: { workload: [to('Look into ${__data.fields.workload}', uids.pods, { namespace: 'namespace', workload: 'workload' })],
      peer: [to('Look into ${__data.fields.peer}', uids.pods, { namespace: 'peer_namespace', workload: 'peer' })] },
    description: `The same by edge. What the other end answers is on its own row, the other way round. A node as a peer stands for its pods with hostNetwork and its processes. ${price}`,
  }, costs(100, ['namespace', 'workload', 'peer_kind', 'peer_namespace', 'peer'], crossing)),
];

const distance = () => [
  graph({ title: 'Locality', unit: 'percentunit', w: 16, h: 9, stack: 'percent', colours: colours.locality,
    description: 'How far goes what pods send to pods and nodes. Topology-aware routing of Services moves orange to blue.',
  }, line(sum(['locality'], rate(sent, `${inNamespace}, locality!="external"`)), '{{locality}}')),
  donut({ title: 'Namespaces', unit: 'decbytes', w: 8, h: 9,
    description: 'What was sent to other zones in the time that is shown, by namespace.',
  }, last(sum(['namespace'], increase(sent, crossing)), '{{namespace}}')),
];

const text = (name, label, value, description) => new TextBoxVariableBuilder(name).label(label).defaultValue(value)
  .current({ selected: true, text: value, value }).options([{ selected: true, text: value, value }]).description(description);

export const zones = () => dashboard({
  uid: uids.zones, title: 'Cross-zone cost', description: 'What crosses availability zones, by namespace, workload and edge, in bytes and in money.', time: 'now-24h',
  variables: [
    namespaceVariable(), text('price', 'Price of a GB', '0.02', 'For 10^9 bytes that are sent to another zone, a number with a point.'),
    text('currency', 'Currency', 'USD', 'Shown beside amounts, and nothing else: nothing is converted.'),
  ],
  rows: [['', totals()], ['', overTime()], ['', who()], ['How far', distance()]],
});
