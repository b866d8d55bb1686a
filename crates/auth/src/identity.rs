/// Who asks: a user, and the auth revision at which that was established.
///
/// It travels with a request through the log, so that every member judges it by the same identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The user; empty when there is none.
    pub username: String,
    /// The auth revision at which the user was established; 0 when there is none.
    pub revision: u64,
}

impl Identity {
    /// The identity of a caller that has shown none.
    pub const NONE: Identity = Identity {
        username: String::new(),
        revision: 0,
    };

    /// Says whether the caller has shown no identity.
    pub fn is_none(&self) -> bool {
        self.revision == 0
    }
}
