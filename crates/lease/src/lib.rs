//! The lessor: grant, renew, expire and checkpoint leases.
