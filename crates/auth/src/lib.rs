//! Users, roles, permission checks and tokens.
