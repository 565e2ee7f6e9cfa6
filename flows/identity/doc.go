// SPDX-License-Identifier: Apache-2.0

// Package identity knows who owns an address and when, and which pods run on
// this node.
//
// A [Cache] holds what is known and answers as a [flows.Directory]. One
// [Source] fills it: [Kubernetes] (informers), [Static] (a YAML file) or [None].
// A [CIDRFile] adds the ranges that the user named, whatever the source.
//
// Everything in a Cache has a lifetime: an address that is handed from one pod
// to another has two owners, one after the other, and a flow that touches both
// belongs to neither. What ended is remembered for [CacheOptions].History.
//
// All types are safe for concurrent use. A Source runs until its context ends;
// nothing else has to be closed.
package identity
