//! The table format, and the rows that the simple format prints too.

use quorate_proto::etcdserverpb::{HashKvResponse, MemberListResponse, StatusResponse};

use super::{At, Backup, Health};

pub(super) const MEMBER_HEADS: [&str; 6] = [
    "ID",
    "STATUS",
    "NAME",
    "PEER ADDRS",
    "CLIENT ADDRS",
    "IS LEARNER",
];
pub(super) const HEALTH_HEADS: [&str; 4] = ["ENDPOINT", "HEALTH", "TOOK", "ERROR"];
pub(super) const HASH_HEADS: [&str; 3] = ["ENDPOINT", "HASH", "HASH REVISION"];
pub(super) const STATUS_HEADS: [&str; 16] = [
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];

pub(super) const BACKUP_HEADS: [&str; 5] =
    ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"];

pub(super) fn members(answer: &MemberListResponse) -> Vec<Vec<String>> {
    let row = |m: &quorate_proto::etcdserverpb::Member| {
        let status = if m.name.is_empty() {
            "unstarted"
        } else {
            "started"
        };
        vec![
            format!("{:x}", m.id),
            status.to_owned(),
            m.name.clone(),
            m.peer_ur_ls.join(","),
            m.client_ur_ls.join(","),
            m.is_learner.to_string(),
        ]
    };
    answer.members.iter().map(row).collect()
}

pub(super) fn health(answers: &[At<Health>]) -> Vec<Vec<String>> {
    let row = |at: &At<Health>| {
        let Health {
            is_healthy,
            took,
            error,
        } = at.answer.clone();
        vec![at.endpoint.clone(), is_healthy.to_string(), took, error]
    };
    answers.iter().map(row).collect()
}

pub(super) fn status(answers: &[At<StatusResponse>]) -> Vec<Vec<String>> {
    let row = |at: &At<StatusResponse>| {
        let a = &at.answer;
        let id = a.header.as_ref().map_or(0, |h| h.member_id);
        let in_use = a
            .db_size_in_use
            .saturating_mul(100)
            .checked_div(a.db_size)
            .unwrap_or(100);
        let downgrade = a.downgrade_info.clone().unwrap_or_default();
        vec![
            at.endpoint.clone(),
            format!("{id:x}"),
            a.version.clone(),
            a.storage_version.clone(),
            bytes(a.db_size),
            bytes(a.db_size_in_use),
            format!("{}%", 100 - in_use),
            bytes(a.db_size_quota),
            (a.leader == id).to_string(),
            a.is_learner.to_string(),
            a.raft_term.to_string(),
            a.raft_index.to_string(),
            a.raft_applied_index.to_string(),
            a.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    answers.iter().map(row).collect()
}

pub(super) fn hash_kv(answers: &[At<HashKvResponse>]) -> Vec<Vec<String>> {
    let row = |at: &At<HashKvResponse>| {
        vec![
            at.endpoint.clone(),
            at.answer.hash.to_string(),
            at.answer.hash_revision.to_string(),
        ]
    };
    answers.iter().map(row).collect()
}

pub(super) fn backup(backup: &Backup) -> Vec<String> {
    vec![
        format!("{:x}", backup.hash),
        backup.revision.to_string(),
        backup.total_keys.to_string(),
        humanized(backup.total_bytes),
        backup.version.clone(),
    ]
}

/// A size that a server gave; a negative one would be its mistake, and Go shows it as the unsigned number of the same bits.
fn bytes(size: i64) -> String {
    humanized(size.cast_unsigned())
}

/// A size with a decimal unit: one digit after the point below ten.
///
/// Source: `github.com/dustin/go-humanize` `Bytes`.
pub(crate) fn humanized(size: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 1_000 {
        return format!("{size} B");
    }
    let (mut unit, mut scale) = (0, 1_000_u64);
    while unit + 1 < UNITS.len() && size / scale >= 1_000 {
        scale *= 1_000;
        unit += 1;
    }
    let tenths = (u128::from(size) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        // Rounded to even from tenths, as printing a float without digits after the point does.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let up = rest > 5 || (rest == 5 && whole % 2 == 1);
        format!("{} {}", whole + u128::from(up), UNITS[unit])
    }
}

/// Draws the table: heads centred, cells to the right.
pub(super) fn render(heads: &[&str], rows: &[Vec<String>]) -> Vec<u8> {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = heads.iter().map(|head| width(head)).collect();
    for row in rows {
        for (column, cell) in widths.iter_mut().zip(row) {
            *column = (*column).max(width(cell));
        }
    }
    let rule = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|w| "\u{2500}".repeat(w + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let mut out = rule("\u{250c}", "\u{252c}", "\u{2510}");
    out.push('\u{2502}');
    for (head, column) in heads.iter().zip(&widths) {
        out += &format!(" {head:^column$} \u{2502}");
    }
    out.push('\n');
    if !rows.is_empty() {
        out += &rule("\u{251c}", "\u{253c}", "\u{2524}");
    }
    for row in rows {
        out.push('\u{2502}');
        for (cell, column) in row.iter().zip(&widths) {
            out += &format!(" {cell:>column$} \u{2502}");
        }
        out.push('\n');
    }
    out += &rule("\u{2514}", "\u{2534}", "\u{2518}");
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_units() {
        for (size, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (16_384, "16 kB"),
            (20_480, "20 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (82_854_982, "83 MB"),
            (2_147_483_648, "2.1 GB"),
            (8_589_934_592, "8.6 GB"),
        ] {
            assert_eq!(bytes(size), want);
        }
    }

    #[test]
    fn heads_are_centred_and_cells_are_to_the_right() {
        let table = render(
            &["ID", "STATUS"],
            &[vec!["2e1259d4".into(), "started".into()]],
        );
        assert_eq!(
            String::from_utf8(table).unwrap(),
            "\
┌──────────┬─────────┐
│    ID    │ STATUS  │
├──────────┼─────────┤
│ 2e1259d4 │ started │
└──────────┴─────────┘
"
        );
    }
}
