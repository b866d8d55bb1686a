//! The command line: the tree of commands, their flags, help and environment, by the rules of etcdctl's libraries.

pub(crate) mod command;
pub(crate) mod commands;
pub(crate) mod env;
pub(crate) mod flags;
pub(crate) mod help;
