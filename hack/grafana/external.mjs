// SPDX-License-Identifier: Apache-2.0
//
// Traffic with the internet: where it goes, whose networks these are, and what is new.

import { IntervalVariableBuilder } from '@grafana/grafana-foundation-sdk/dashboard';
import { chosen, dashboard, namespaceVariable, outside, to, uids } from './dashboard.mjs';
import { colours, graph, last, line, map, rows, stat, table } from './panels.mjs';
import { among, busiest, inBoth, inCluster, inNamespace, increase, orZero, rate, shown, sum, top, topk } from './promql.mjs';

const both = ['transmit', 'receive'];
const bytes = (direction) => `podmeter_external_${direction}_bytes_total`;
const here = `${inNamespace}, pod=~"$pod"`;
const flows = `${here}, peer_kind="external"`;
const located = `${here}, latitude!=""`;

const totals = () => [
  stat({ title: 'To the internet', unit: 'Bps', w: 4, h: 4, color: colours.transmit,
    description: 'What the chosen pods send to addresses outside of the cluster, from the flow family, so that what a limit folds in the external one is in it.',
  }, line(orZero(sum([], rate('podmeter_flow_transmit_bytes_total', flows))), 'transmitted')),
  stat({ title: 'From the internet', unit: 'Bps', w: 4, h: 4, color: colours.receive,
    description: 'What the chosen pods receive from addresses outside of the cluster.',
  }, line(orZero(sum([], rate('podmeter_flow_receive_bytes_total', flows))), 'received')),
  stat({ title: 'Sent', unit: 'decbytes', w: 4, h: 4, color: colours.transmit, graph: false,
    description: 'What was sent to the internet in all the time that is shown. What a provider charges for egress is counted at its gateway, without Ethernet headers.',
  }, last(sum([], increase('podmeter_flow_transmit_bytes_total', flows)), 'sent')),
  stat({ title: 'Countries', unit: 'short', w: 4, h: 4, color: 'purple', graph: false,
    description: 'Countries with which there was traffic in the time that is shown; those that are not known and those that a limit folded are left out.',
  }, last(`count(${sum(['country'], increase(bytes('transmit'), `${here}, country!~"|other"`))} > 0)`, 'countries')),
  stat({ title: 'Autonomous systems', unit: 'short', w: 4, h: 4, color: 'purple', graph: false,
    description: 'Networks with which there was traffic in the time that is shown. It needs a database of autonomous systems (--geoip takes several).',
  }, last(`count(${sum(['asn'], increase(bytes('transmit'), `${here}, asn!=""`))} > 0)`, 'autonomous systems')),
  stat({ title: 'Place unknown', unit: 'percentunit', w: 4, h: 4, decimals: 1, thresholds: [[null, 'green'], [0.1, 'yellow'], [0.5, 'red']], graph: false, noValue: '0 %',
    description: 'The share of what is sent to the internet whose country no database knows, or that a series limit folded, in the time that is shown.',
  }, last(`(${orZero(sum([], increase(bytes('transmit'), `${here}, country=~"|other"`)))}) / (${sum([], increase(bytes('transmit'), here))} > 0)`, 'unknown')),
];

const places = () => [
  map({ title: 'Where to', unit: 'Bps', w: 16, h: 15, labels: { country: 'Country', city: 'City', latitude: 'latitude', longitude: 'longitude' },
    value: { name: 'Transmitted', unit: 'Bps' },
    description: 'The mean rate that is sent to each place in the time that is shown. It needs the opt-in labels of --external-labels city,latitude,longitude. Where a database has no coordinates the mark is in the middle of the country. The background is loaded from the servers of Grafana\'s default base layer.',
  }, rows(topk(500, sum(['country', 'city', 'latitude', 'longitude'], rate(bytes('transmit'), located, shown))))),
  table({ title: 'Countries', w: 8, h: 15, labels: { country: 'Country' },
    values: [{ name: 'Transmitted', unit: 'Bps', cell: 'gauge', min: 0 }, { name: 'Received', unit: 'Bps', cell: 'gauge', min: 0, scheme: 'continuous-greens' }],
    description: 'Mean rates by country (ISO 3166-1). Empty is a country that no database knows, other what a series limit folded.',
  }, both.map((direction) => rows(sum(['country'], rate(bytes(direction), here, shown))))),
];

const overTime = () => both.map((direction) => graph({ title: `Countries, ${direction === 'transmit' ? 'transmitted' : 'received'}`, unit: 'Bps', w: 12, h: 9, stack: 'normal',
  description: `The ten countries with most that is ${direction === 'transmit' ? 'sent' : 'received'} in all the time that is shown.`,
}, line(top(10, ['country'], bytes(direction), here), '{{country}}')));

const as = ['asn', 'organization', 'country'];
const destination = ['cluster', 'namespace', ...as];
// What has come to be: its value since it began is all that there is of it. What is only received
// from is none, as a scan that nobody answers. Nothing is new to a Prometheus that was not there
// before.
const fresh = (by) => `${sum(by, `last_over_time(${bytes('transmit')}{${here}, country!="other"}[$window])`)} > 0
unless on (${by.join(', ')}) group by (${by.join(', ')}) (last_over_time(${bytes('transmit')}{${here}}[$window] offset $window))
and on (cluster) group by (cluster) (podmeter_build_info{${inCluster}} offset $window)`;

const networks = () => [
  table({ title: 'Autonomous systems', w: 12, h: 11, labels: { asn: 'AS', organization: 'Organization', country: 'Country' },
    values: [{ name: 'Transmitted', unit: 'Bps', cell: 'gauge', min: 0 }, { name: 'Received', unit: 'Bps', cell: 'gauge', min: 0, scheme: 'continuous-greens' }, { name: 'Sent', unit: 'decbytes' }],
    description: 'The 200 networks with most traffic in both directions, by mean rate in the time that is shown, and what was sent in it. One that is in several countries has several rows.',
  }, [...inBoth(200, as, bytes, here), among(busiest(200, as, bytes, here), as, sum(as, increase(bytes('transmit'), here)))].map(rows)),
  table({ title: 'New destinations in the last $window', w: 12, h: 11,
    labels: { cluster: 'Cluster', namespace: 'Namespace', country: 'Country', asn: 'AS', organization: 'Organization' }, values: [{ name: 'Sent', unit: 'decbytes', cell: 'gauge', min: 0 }],
    linked: { namespace: [to('Look into ${__data.fields.namespace}', uids.pods, { namespace: 'namespace' })] }, noValue: 'Nothing new',
    description: 'Countries and networks that a namespace sends to and did not in the window before, with all that it has sent there. Nothing is shown where Prometheus has no data of the window before. A destination that comes back after longer than the window is new again.',
  }, rows(fresh(destination))),
];

const talkers = () => [
  table({ title: 'Who talks to the internet', w: 12, h: 10, labels: { namespace: 'Namespace', pod: 'Pod' },
    values: [{ name: 'Transmitted', unit: 'Bps', cell: 'gauge', min: 0 }, { name: 'Received', unit: 'Bps', cell: 'gauge', min: 0, scheme: 'continuous-greens' }],
    linked: { namespace: [to('Look into ${__data.fields.namespace}', uids.pods, { namespace: 'namespace' })], pod: [to('Look into ${__data.fields.pod}', uids.pods, { namespace: 'namespace', pod: 'pod' })] },
    description: 'The 100 pods with most traffic with the internet in both directions, by mean rate in the time that is shown.',
  }, inBoth(100, ['namespace', 'pod'], (direction) => `podmeter_flow_${direction}_bytes_total`, flows).map(rows)),
  graph({ title: 'Namespaces, transmitted to the internet', unit: 'Bps', w: 12, h: 10, stack: 'normal',
    links: [to('Look into ${__field.labels.namespace}', uids.pods, { namespace: 'namespace' }, 'line')],
    description: 'The ten namespaces that send most to the internet in all the time that is shown.',
  }, line(top(10, ['namespace'], 'podmeter_flow_transmit_bytes_total', flows), '{{namespace}}')),
];

const addresses = () => [
  map({ title: 'Addresses', unit: 'short', w: 16, h: 14, labels: { ip: 'Address', country: 'Country', city: 'City', latitude: 'latitude', longitude: 'longitude' },
    value: { name: 'Value', unit: 'short' },
    description: 'The addresses that podmeter geoip finds in its query (--query), each with that query\'s value: bytes, or bytes a second, as it asks for. Namespace and pod do not choose here, unless the exporter carries them over (--label).',
  }, rows(topk(1000, sum(['ip', 'country', 'city', 'latitude', 'longitude'], `geo_ip{${inCluster}, latitude!=""}`)))),
  table({ title: 'Addresses as a list', w: 8, h: 14, labels: { ip: 'Address', country: 'Country', city: 'City' }, values: [{ name: 'Value', unit: 'short', cell: 'gauge', min: 0 }],
    description: 'The same, and those without a place too. Its rows are as new as the exporter\'s last answer, whose age is on the dashboard podmeter itself.',
  }, rows(topk(1000, sum(['ip', 'country', 'city'], `geo_ip{${inCluster}}`)))),
];

const windows = () => new IntervalVariableBuilder('window').label('New within').values('1h,6h,12h,1d,3d,7d')
  .current({ selected: true, text: '1d', value: '1d' }).description('How far back a destination is new, and the window before in which it must not have been.');

export const external = () => dashboard({
  uid: uids.external, title: 'External', description: 'Traffic with the internet by place and network, and destinations that are new.',
  variables: [namespaceVariable(), chosen('pod', 'Pod', bytes('transmit'), inNamespace), windows()],
  links: [outside('IP Geolocation by DB-IP', 'DB-IP Lite, which the stack fetches, asks for this link.', 'https://db-ip.com')],
  rows: [['', totals()], ['', places()], ['Over time', overTime()], ['Networks', networks()], ['From where', talkers()], ['By address (podmeter geoip)', addresses()]],
});
