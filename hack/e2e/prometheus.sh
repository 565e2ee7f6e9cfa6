#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the Prometheus that the manifests name and brings it into the cluster's
# node. The first time takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
make prometheus-image
hack/cluster/load.sh bin/prometheus-image.tar
