//! Call sites, SQL texts and stacks.

pub(crate) mod sql;
pub(crate) mod text;
