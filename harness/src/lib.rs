// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast's library.
