//! Verbs: one file each.
