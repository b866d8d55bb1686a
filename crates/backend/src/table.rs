//! The tables.

use bytes::Bytes;

/// One of the tables, each of which is a bucket of etcd's database: same names, same keys, same values.
///
/// The variants order as the names do, byte by byte, which is the order in which `Hash` walks them.
///
/// Source: etcd 3.7.1 `server/storage/schema/bucket.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Serialized `AlarmMember` to nothing.
    Alarm,
    /// Whether authentication is on, and its revision.
    Auth,
    /// Role name to `authpb.Role`.
    AuthRoles,
    /// User name to `authpb.User`.
    AuthUsers,
    /// Cluster version and downgrade state.
    Cluster,
    /// [`Revision`](crate::Revision) to encoded `KeyValue`, append-only but for compaction.
    Key,
    /// Lease id, 8 bytes big endian, to `leasepb.Lease`.
    Lease,
    /// Member id in hexadecimal to the member as JSON.
    Members,
    /// Member id in hexadecimal to `removed`.
    MembersRemoved,
    /// Consistent index and term, conf state, versions, compaction marks.
    Meta,
}

/// A row of a table: key and value.
pub type TableRow = (Table, Bytes, Bytes);

impl Table {
    /// How many tables there are.
    pub const COUNT: usize = 10;

    /// All tables, in the order of their names.
    pub const ALL: [Table; Table::COUNT] = [
        Table::Alarm,
        Table::Auth,
        Table::AuthRoles,
        Table::AuthUsers,
        Table::Cluster,
        Table::Key,
        Table::Lease,
        Table::Members,
        Table::MembersRemoved,
        Table::Meta,
    ];

    /// Returns the name of etcd's bucket.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Table::Alarm => "alarm",
            Table::Auth => "auth",
            Table::AuthRoles => "authRoles",
            Table::AuthUsers => "authUsers",
            Table::Cluster => "cluster",
            Table::Key => "key",
            Table::Lease => "lease",
            Table::Members => "members",
            Table::MembersRemoved => "members_removed",
            Table::Meta => "meta",
        }
    }

    /// Returns the table's place in [`Table::ALL`].
    pub(crate) const fn slot(self) -> usize {
        match self {
            Table::Alarm => 0,
            Table::Auth => 1,
            Table::AuthRoles => 2,
            Table::AuthUsers => 3,
            Table::Cluster => 4,
            Table::Key => 5,
            Table::Lease => 6,
            Table::Members => 7,
            Table::MembersRemoved => 8,
            Table::Meta => 9,
        }
    }
}

/// Key in [`Table::Meta`] of the index of the newest applied log entry, 8 bytes big endian.
///
/// Source: etcd 3.7.1 `server/storage/schema/meta.go`.
pub const CONSISTENT_INDEX_KEY: &[u8] = b"consistent_index";

/// Key in [`Table::Meta`] of the term of the newest applied log entry, 8 bytes big endian.
///
/// Source: etcd 3.7.1 `server/storage/schema/meta.go`.
pub const TERM_KEY: &[u8] = b"term";

/// Says whether only an [`ApplyTxn`](crate::ApplyTxn)'s own commit may write this key.
pub(crate) fn is_consistent_index_key(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && (key == CONSISTENT_INDEX_KEY || key == TERM_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_their_names() {
        for pair in Table::ALL.windows(2) {
            assert!(pair[0].name().as_bytes() < pair[1].name().as_bytes());
            assert!(pair[0] < pair[1]);
        }
        for (slot, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table.slot(), slot);
        }
    }
}
