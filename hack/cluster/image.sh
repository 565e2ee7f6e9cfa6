#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# image.sh name folder command...: writes an image to standard output, as
# 'docker save' does: one layer, which is the folder.
set -euo pipefail
name=$1 folder=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tar --create --file "$work/layer.tar" --directory "$folder" --owner 0 --group 0 --numeric-owner \
	--sort name --mtime @0 .
layer=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
command=$(printf '"%s",' "$@")
printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":[%s],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
	"$(go env GOARCH)" "${command%,}" "$layer" >"$work/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" >"$work/manifest.json"
tar --create --directory "$work" --sort name manifest.json config.json layer.tar
