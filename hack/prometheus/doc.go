// SPDX-License-Identifier: Apache-2.0

// Package prometheus pins the Prometheus that the manifests name, so that it can be
// built where no registry is reached ('make prometheus-image'), and tests the shipped
// configuration with its code.
package prometheus
