#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the outline of the world of the agent's page anew. Needs Go and npm.
set -euo pipefail
cd "$(dirname "$0")"
package=world-atlas@2.0.2
sum=2177d5d2ac25297a5c933d458705d5c0a46388884e9d6b6d3ac926e42b7132c8e013f317018447589aa05cea4cf0891c3c1a179f24d4e651477186b90a11b42d

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
archive=$(npm pack --silent --pack-destination "$folder" "$package")
echo "$sum  $folder/$archive" | sha512sum --check --quiet
tar -xzf "$folder/$archive" -C "$folder" package/land-50m.json
go run ./land "$folder/package/land-50m.json" "$package" >"$folder/land.js"
mv "$folder/land.js" ../../cmd/podmeter/agent/page/assets/land.js
