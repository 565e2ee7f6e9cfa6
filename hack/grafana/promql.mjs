// SPDX-License-Identifier: Apache-2.0
//
// Pieces of PromQL, so that each query selects by the same variables in the same way.

// What the variables choose. A label that no series has matches ".*", which is what All is.
export const inCluster = 'cluster=~"$cluster"';
export const inNamespace = `${inCluster}, namespace=~"$namespace"`;
export const inPod = `${inNamespace}, workload=~"$workload", pod=~"$pod", container=~"$container"`;

// Of a moment of a graph, and of all the time that is shown.
export const now = '$__rate_interval';
export const shown = '$__range';

export const rate = (metric, selector, range = now) => `rate(${metric}{${selector}}[${range}])`;
export const increase = (metric, selector, range = shown) => `increase(${metric}{${selector}}[${range}])`;
export const sum = (by, expr) => (by.length > 0 ? `sum by (${by.join(', ')}) (${expr})` : `sum(${expr})`);
export const topk = (count, expr) => `topk(${count}, ${expr})`;
// Where there is nothing, 0 is meant.
export const orZero = (expr) => `${expr} or vector(0)`;
// Nothing, rather than the quotient of nothing.
export const ratio = (part, whole) => `${part} / (${whole} > 0)`;

// The rate by labels of those label sets that have most in all the time that is shown: topk
// alone would choose anew at each point of a graph.
export const top = (count, by, metric, selector) =>
  `${sum(by, rate(metric, selector))} and on (${by.join(', ')}) ${topk(count, sum(by, `rate(${metric}{${selector}}[${shown}] @ end())`))}`;

// The label sets that have most in both directions in all the time that is shown, those that have
// one direction alone among them; bytes names the metric of a direction. A row of a table has
// several columns, each of which alone would choose other rows.
export const busiest = (count, by, bytes, selector) => topk(count, sum(by,
  `${rate(bytes('transmit'), selector, shown)} or label_replace(${rate(bytes('receive'), selector, shown)}, "direction", "receive", "", "")`));
export const among = (chosen, by, expr) => `(${expr}) and on (${by.join(', ')}) ${chosen}`;

// Transmit and receive of these.
export const inBoth = (count, by, bytes, selector) => ['transmit', 'receive'].map((direction) =>
  among(busiest(count, by, bytes, selector), by, sum(by, rate(bytes(direction), selector, shown))));

// A quantile of the RTT, of classic buckets, or of native ones where Prometheus keeps these
// alone. What has no sample is left out.
export const rtt = (quantile, by, selector, range = now) => {
  const classic = sum([...by, 'le'], rate('podmeter_tcp_rtt_seconds_bucket', selector, range));
  const native = sum(by, rate('podmeter_tcp_rtt_seconds', selector, range));
  return `histogram_quantile(${quantile}, ${classic}) >= 0 or histogram_quantile(${quantile}, ${native}) >= 0`;
};

// The mean RTT, which is there without buckets too.
export const meanRTT = (by, selector, range = now) => {
  const classic = ratio(sum(by, rate('podmeter_tcp_rtt_seconds_sum', selector, range)), sum(by, rate('podmeter_tcp_rtt_seconds_count', selector, range)));
  const native = sum(by, rate('podmeter_tcp_rtt_seconds', selector, range));
  return `${classic} or ${ratio(`histogram_sum(${native})`, `histogram_count(${native})`)}`;
};

// The same of what has no quantile.
export const meanRTTInstead = (quantile, by, selector) => `(${meanRTT(by, selector)}) unless on (${by.join(', ')}) (${rtt(quantile, by, selector)})`;

// The samples of RTTs by bucket, of native ones where they are.
export const rttBuckets = (selector) =>
  `${sum([], rate('podmeter_tcp_rtt_seconds', selector))} or on () ${sum(['le'], rate('podmeter_tcp_rtt_seconds_bucket', selector))}`;

// What a panel with quantiles of RTTs says of them.
export const quantilesNeed = 'Quantiles need a Prometheus that scrapes native histograms (scrape_native_histograms), or agents with --rtt-classic-buckets: without either there is the mean alone.';

// The share of what TCP sends that it sends again.
export const retransmitted = (by, selector, range = now) =>
  ratio(sum(by, rate('podmeter_tcp_retransmitted_bytes_total', selector, range)),
    sum(by, rate('podmeter_flow_transmit_bytes_total', `${selector}, protocol="tcp"`, range)));

// An edge has a label for each of its ends, namespace/workload.
export const edge = (expr) =>
  `label_join(label_join(${expr}, "from", "/", "namespace", "workload"), "to", "/", "peer_namespace", "peer")`;
