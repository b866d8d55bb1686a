use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

/// What tokens are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenProvider {
    /// Random letters and the log index of the login, kept in memory by every member.
    Simple {
        /// How long an unused token is valid; 0 is [`TOKEN_TTL_MS_DEFAULT`].
        ttl_ms: u64,
        /// Most tokens held; when there would be more, those nearest to their end go.
        tokens_max: usize,
    },
    /// No token is ever valid, and nobody can log in.
    Noop,
}

/// How long a simple token is valid unless it is used.
///
/// Source: etcd v3.7.1 `server/auth/simple_token.go` `simpleTokenTTLDefault`.
pub const TOKEN_TTL_MS_DEFAULT: u64 = 300_000;
/// Most simple tokens that a member holds, some 150 bytes each. Differs from etcd: there is no limit there.
pub const TOKENS_MAX_DEFAULT: usize = 1 << 18;
/// Letters before the dot of a simple token.
pub const TOKEN_LETTERS: usize = 16;

const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl Default for TokenProvider {
    fn default() -> Self {
        Self::Simple {
            ttl_ms: TOKEN_TTL_MS_DEFAULT,
            tokens_max: TOKENS_MAX_DEFAULT,
        }
    }
}

/// Makes the random part of a simple token from random numbers, which the caller takes from a source fit for secrets.
pub fn token_letters(random: &[u32; TOKEN_LETTERS]) -> String {
    let letter = |&r: &u32| {
        char::from(ALPHABET[((u64::from(r) * ALPHABET.len() as u64) >> 32) as usize & 0x3f])
    };
    random.iter().map(letter).collect()
}

/// Returns the log index that a simple token carries: until it is applied, a member cannot judge the token. `None` when
/// the text is no simple token.
///
/// Source: etcd v3.7.1 `server/auth/simple_token.go` `isValidSimpleToken`.
pub fn token_index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    let digits = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    if digits { index.parse().ok() } else { None }
}

/// The simple tokens of a member and whose they are; shared between threads.
///
/// The end of a token moves with each use, without any lock but the shared one.
pub(crate) struct TokenTable {
    ttl_ms: u64,
    tokens_max: usize,
    /// Never iterated where the order could be seen.
    tokens: RwLock<HashMap<Box<str>, Token>>,
}

struct Token {
    user: Arc<str>,
    valid_until_ms: AtomicU64,
}

impl TokenTable {
    pub(crate) fn new(ttl_ms: u64, tokens_max: usize) -> Self {
        Self {
            ttl_ms: if ttl_ms == 0 {
                TOKEN_TTL_MS_DEFAULT
            } else {
                ttl_ms
            },
            tokens_max: tokens_max.max(1),
            tokens: RwLock::new(HashMap::new()),
        }
    }

    /// Gives a token to a user. When the table is full, tokens that have ended go, or else a sixteenth of all, those
    /// nearest to their end.
    pub(crate) fn assign(&self, token: &str, user: &str, now_ms: u64) {
        let mut tokens = self.tokens.write();
        if tokens.len() >= self.tokens_max {
            tokens.retain(|_, t| t.valid_until_ms.load(Ordering::Relaxed) >= now_ms);
        }
        if tokens.len() >= self.tokens_max {
            let mut ends: Vec<u64> = tokens
                .values()
                .map(|t| t.valid_until_ms.load(Ordering::Relaxed))
                .collect();
            let (_, cut, _) = ends.select_nth_unstable(self.tokens_max / 16);
            let cut = *cut;
            tokens.retain(|_, t| t.valid_until_ms.load(Ordering::Relaxed) > cut);
        }
        let token_of = Token {
            user: user.into(),
            valid_until_ms: AtomicU64::new(now_ms.saturating_add(self.ttl_ms)),
        };
        tokens.insert(token.into(), token_of);
    }

    /// Returns whose token it is, and lets it live on from now.
    pub(crate) fn user_of(&self, token: &str, now_ms: u64) -> Option<Arc<str>> {
        let tokens = self.tokens.read();
        let found = tokens.get(token)?;
        if found.valid_until_ms.load(Ordering::Relaxed) < now_ms {
            return None;
        }
        found
            .valid_until_ms
            .fetch_max(now_ms.saturating_add(self.ttl_ms), Ordering::Relaxed);
        Some(Arc::clone(&found.user))
    }

    /// Drops all tokens of a user.
    pub(crate) fn invalidate_user(&self, user: &str) {
        self.tokens.write().retain(|_, t| *t.user != *user);
    }

    /// Drops all tokens.
    pub(crate) fn invalidate_all(&self) {
        self.tokens.write().clear();
    }

    /// Drops tokens that have ended, and returns how many.
    pub(crate) fn sweep(&self, now_ms: u64) -> usize {
        let ended = |t: &Token| t.valid_until_ms.load(Ordering::Relaxed) < now_ms;
        if !self.tokens.read().values().any(ended) {
            return 0;
        }
        let mut tokens = self.tokens.write();
        let before = tokens.len();
        tokens.retain(|_, t| !ended(t));
        before - tokens.len()
    }
}

impl fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenTable")
            .field("len", &self.tokens.read().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(table: &TokenTable, token: &str, now_ms: u64) -> Option<String> {
        table.user_of(token, now_ms).map(|user| user.to_string())
    }

    #[test]
    fn token_lives_as_long_as_it_is_used() {
        let table = TokenTable::new(1_000, 10);
        table.assign("a.1", "u", 0);
        assert_eq!(user(&table, "a.1", 900).as_deref(), Some("u"));
        assert_eq!(user(&table, "a.1", 1_900).as_deref(), Some("u"));
        assert_eq!(
            user(&table, "a.1", 100).as_deref(),
            Some("u"),
            "a use never shortens it"
        );
        assert_eq!(table.sweep(2_900), 0);
        assert_eq!(user(&table, "a.1", 2_901), None);
        assert_eq!(table.sweep(2_901), 1);
        assert_eq!(user(&table, "a.1", 0), None);
    }

    #[test]
    fn tokens_go_by_user_or_all() {
        let table = TokenTable::new(0, 10);
        table.assign("a.1", "u", 0);
        table.assign("b.2", "v", 0);
        table.assign("c.3", "u", 0);
        table.invalidate_user("u");
        assert_eq!(
            [user(&table, "a.1", 0), user(&table, "c.3", 0)],
            [None, None]
        );
        assert_eq!(
            user(&table, "b.2", TOKEN_TTL_MS_DEFAULT).as_deref(),
            Some("v")
        );
        table.invalidate_all();
        assert_eq!(user(&table, "b.2", 0), None);
    }

    #[test]
    fn table_never_grows_over_its_limit() {
        let table = TokenTable::new(1_000_000, 64);
        for n in 0..1_000u64 {
            table.assign(&format!("x.{n}"), "u", n);
            assert!(table.tokens.read().len() <= 64);
            assert!(user(&table, &format!("x.{n}"), n).is_some());
        }
        assert!(
            user(&table, "x.0", 1_000).is_none(),
            "the oldest went first"
        );
        for n in 0..100 {
            table.assign(&format!("y.{n}"), "u", 5_000);
        }
        assert!(table.tokens.read().len() <= 64);
    }

    #[test]
    fn only_letters_dot_digits_is_a_simple_token() {
        assert_eq!(token_index("abcdefghijklmnop.12"), Some(12));
        assert_eq!(token_index(".0"), Some(0));
        assert_eq!(token_index(&format!("a.{}", u64::MAX)), Some(u64::MAX));
        for bad in [
            "",
            "abc",
            "a.",
            "a.b",
            "a.1.2",
            "a.+1",
            "a.-1",
            "a. 1",
            "a.0x1",
            "a.1_0",
            "a.18446744073709551616",
        ] {
            assert_eq!(token_index(bad), None, "{bad}");
        }
    }

    #[test]
    fn letters_use_the_whole_alphabet_and_nothing_else() {
        let lowest = token_letters(&[0; TOKEN_LETTERS]);
        let highest = token_letters(&[u32::MAX; TOKEN_LETTERS]);
        assert_eq!(
            (&*lowest, &*highest),
            ("aaaaaaaaaaaaaaaa", "ZZZZZZZZZZZZZZZZ")
        );
        let step = (1u64 << 32) / 52 + 1;
        for (n, &letter) in ALPHABET.iter().enumerate() {
            let r = u32::try_from(n as u64 * step).unwrap();
            assert!(
                token_letters(&[r; TOKEN_LETTERS])
                    .bytes()
                    .all(|b| b == letter)
            );
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let table = TokenTable::new(0, 10);
        table.assign("secret.1", "u", 0);
        assert_eq!(format!("{table:?}"), "TokenTable { len: 1, .. }");
    }
}
