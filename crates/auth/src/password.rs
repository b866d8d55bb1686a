//! Passwords: bcrypt, as pure functions that may take a tenth of a second and belong on no thread that serves others.
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use quorate_proto::etcdserverpb::{AuthUserAddRequest, AuthUserChangePasswordRequest};

use crate::Error;

/// The longest password in bytes.
///
/// Source: golang.org/x/crypto v0.52 `bcrypt/bcrypt.go` `ErrPasswordTooLong`.
pub const PASSWORD_BYTES_MAX: usize = 72;
/// The bcrypt cost that is used in place of one out of range.
pub const COST_DEFAULT: u32 = 10;
/// The lowest bcrypt cost.
pub const COST_MIN: u32 = 4;
/// The highest bcrypt cost.
pub const COST_MAX: u32 = 31;

/// Bytes of a bcrypt salt.
pub const SALT_BYTES: usize = 16;

const SALT_CHARS: usize = 22;
const HASH_BYTES: usize = 23;

/// Bcrypt's own Base64 alphabet, decoded as leniently as etcd does: unused bits of the last character may be set.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Base64 as Go's standard encoding takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// Returns the cost itself when bcrypt can be run with it, else [`COST_DEFAULT`].
pub fn effective_cost(cost: u32) -> u32 {
    if (COST_MIN..=COST_MAX).contains(&cost) {
        cost
    } else {
        COST_DEFAULT
    }
}

/// Hashes a password with bcrypt, into the text form with prefix `$2a$` that etcd stores.
///
/// # Errors
/// [`Error::PasswordTooLong`] above [`PASSWORD_BYTES_MAX`].
pub fn hash(password: &str, cost: u32, salt: [u8; SALT_BYTES]) -> Result<String, Error> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::PasswordTooLong);
    }
    let cost = effective_cost(cost);
    let hash = raw_hash(password.as_bytes(), cost, salt);
    let (salt, hash) = (BCRYPT_BASE64.encode(salt), BCRYPT_BASE64.encode(hash));
    Ok(format!("$2a${cost:02}${salt}{hash}"))
}

/// Says whether the password is the one that was hashed; false also when the hash is no bcrypt hash.
///
/// Only the first 72 bytes of the password count, as in etcd.
pub fn verify(password: &str, hash: &[u8]) -> bool {
    let Some((cost, salt, stored)) = parse(hash) else {
        return false;
    };
    let computed = BCRYPT_BASE64.encode(raw_hash(password.as_bytes(), cost, salt));
    let differences = stored
        .iter()
        .zip(computed.as_bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    stored.len() == computed.len() && differences == 0
}

/// Readies a request for the log: replaces the password by its hash, so that no password is ever logged.
///
/// Differs from etcd: a password sent for a user that is to have none is dropped; there it is written into the log.
///
/// # Errors
/// [`Error::PasswordTooLong`].
pub fn prepare_user_add(
    request: &mut AuthUserAddRequest,
    cost: u32,
    salt: [u8; SALT_BYTES],
) -> Result<(), Error> {
    if !request.options.is_some_and(|o| o.no_password) {
        request.hashed_password = BASE64.encode(hash(&request.password, cost, salt)?);
    }
    request.password.clear();
    Ok(())
}

/// Readies a request for the log: replaces the password by its hash, unless it is empty, in which case what the client
/// sent as the hash is taken over.
///
/// # Errors
/// [`Error::PasswordTooLong`].
pub fn prepare_user_change_password(
    request: &mut AuthUserChangePasswordRequest,
    cost: u32,
    salt: [u8; SALT_BYTES],
) -> Result<(), Error> {
    if !request.password.is_empty() {
        request.hashed_password = BASE64.encode(hash(&request.password, cost, salt)?);
        request.password.clear();
    }
    Ok(())
}

/// Returns the hash that a replicated request carries.
///
/// Differs from etcd: a request with a password and no hash, as members before 3.5 logged it, is refused; there each
/// member hashes it with a salt of its own, and the members differ.
///
/// # Errors
/// [`Error::NoPasswordUser`] when it is not Base64.
pub(crate) fn replicated_hash(password: &str, hashed_password: &str) -> Result<Vec<u8>, Error> {
    if !password.is_empty() && hashed_password.is_empty() {
        return Err(Error::NoPasswordUser);
    }
    let text: Vec<u8> = hashed_password
        .bytes()
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect();
    BASE64.decode(text).map_err(|_| Error::NoPasswordUser)
}

/// Runs bcrypt over the first 72 bytes of the password and the zero byte that ends it.
fn raw_hash(password: &[u8], cost: u32, salt: [u8; SALT_BYTES]) -> [u8; HASH_BYTES] {
    let mut key = [0; PASSWORD_BYTES_MAX];
    let len = password.len().min(PASSWORD_BYTES_MAX);
    key[..len].copy_from_slice(&password[..len]);
    let used = (len + 1).min(PASSWORD_BYTES_MAX);
    let hash = bcrypt::bcrypt(cost, salt, &key[..used]);
    let mut kept = [0; HASH_BYTES];
    kept.copy_from_slice(&hash[..HASH_BYTES]);
    kept
}

/// Takes a bcrypt text apart: `$2`, an optional letter, `$`, cost, `$`, salt, hash.
fn parse(text: &[u8]) -> Option<(u32, [u8; SALT_BYTES], &[u8])> {
    let rest = text.strip_prefix(b"$2")?;
    let rest = match rest.first()? {
        b'$' => rest,
        _ => &rest[1..],
    };
    let rest = rest.strip_prefix(b"$")?;
    let (cost, rest) = rest.split_at_checked(2)?;
    let cost: u32 = std::str::from_utf8(cost).ok()?.parse().ok()?;
    let (salt, hash) = rest.strip_prefix(b"$")?.split_at_checked(SALT_CHARS)?;
    let salt = BCRYPT_BASE64.decode(salt).ok()?.try_into().ok()?;
    (COST_MIN..=COST_MAX)
        .contains(&cost)
        .then_some((cost, salt, hash))
}

#[cfg(test)]
mod tests {
    use quorate_proto::authpb::UserAddOptions;

    use super::*;

    const SALT: [u8; SALT_BYTES] = *b"0123456789abcdef";

    #[test]
    fn hashes_verify() {
        for password in ["", "pw", "päßword", &"x".repeat(72)] {
            let text = hash(password, 4, SALT).unwrap();
            assert!(text.starts_with("$2a$04$") && text.len() == 60, "{text}");
            assert!(verify(password, text.as_bytes()));
            assert!(!verify("other", text.as_bytes()));
            assert!(!verify("", text.as_bytes()) || password.is_empty());
        }
    }

    #[test]
    fn hashes_of_etcd_verify() {
        let full = "x".repeat(72);
        // From a database of etcd 3.7.1.
        for (password, text) in [
            (
                "",
                "$2a$04$pz6idLKWR4q2UYe6IZzaveWvuOUzL09TQ53JWDzVKlePtpoFTshj2",
            ),
            (
                "pä$$word",
                "$2a$04$aUNI8zG4nC7yoOMqNhM8gOfyrhi6z691EhpmkKDNL5gQRbbpbntdi",
            ),
            (
                &*full,
                "$2a$04$HaO20EfRMVjaLjvTpINFAe7/HoWkcH/6/lx6CGcKeJEXkDDYC6LWG",
            ),
        ] {
            assert!(verify(password, text.as_bytes()), "{text}");
            assert!(!verify("other", text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn other_letters_behind_the_version_are_taken() {
        for letter in ["a", "b", "y", ""] {
            let text =
                format!("$2{letter}$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW");
            assert!(verify("U*U", text.as_bytes()), "{text}");
            assert!(!verify("U*V", text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn too_long_a_password_is_refused_but_may_be_tried() {
        let full = "x".repeat(PASSWORD_BYTES_MAX);
        let error = hash(&format!("{full}x"), 4, SALT).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bcrypt: password length exceeds 72 bytes"
        );
        let text = hash(&full, 4, SALT).unwrap();
        assert!(
            verify(&format!("{full}y"), text.as_bytes()),
            "only 72 bytes count"
        );
    }

    #[test]
    fn cost_out_of_range_is_ten() {
        assert_eq!(
            [0, 3, 4, 31, 32, u32::MAX].map(effective_cost),
            [10, 10, 4, 31, 10, 10]
        );
        assert!(hash("pw", 99, SALT).unwrap().starts_with("$2a$10$"));
    }

    #[test]
    fn what_is_no_hash_never_verifies() {
        let good = hash("pw", 4, SALT).unwrap().into_bytes();
        for len in 0..good.len() {
            assert!(!verify("pw", &good[..len]));
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = 0xff;
            // Any letter may stand behind the 2.
            assert!(!verify("pw", &bad) || at == 2, "byte {at}");
        }
        assert!(!verify("pw", &[&good[..], b"x"].concat()));
        assert!(!verify(
            "pw",
            b"$2a$99$0123456789012345678901234567890123456789012345678901"
        ));
    }

    #[test]
    fn requests_for_the_log_carry_no_password() {
        let mut add = AuthUserAddRequest {
            password: "pw".into(),
            hashed_password: "from the client".into(),
            ..Default::default()
        };
        prepare_user_add(&mut add, 4, SALT).unwrap();
        assert_eq!(add.password, "");
        assert!(verify(
            "pw",
            &replicated_hash("", &add.hashed_password).unwrap()
        ));

        let mut add = AuthUserAddRequest {
            password: "pw".into(),
            options: Some(UserAddOptions { no_password: true }),
            ..Default::default()
        };
        prepare_user_add(&mut add, 4, SALT).unwrap();
        assert_eq!((&*add.password, &*add.hashed_password), ("", ""));

        let mut change = AuthUserChangePasswordRequest {
            password: "pw".into(),
            ..Default::default()
        };
        prepare_user_change_password(&mut change, 4, SALT).unwrap();
        assert_eq!(change.password, "");
        assert!(verify(
            "pw",
            &replicated_hash("", &change.hashed_password).unwrap()
        ));

        let mut change = AuthUserChangePasswordRequest {
            hashed_password: "aGFzaA==".into(),
            ..Default::default()
        };
        prepare_user_change_password(&mut change, 4, SALT).unwrap();
        assert_eq!(
            replicated_hash(&change.password, &change.hashed_password).unwrap(),
            b"hash"
        );
    }

    #[test]
    fn replicated_hash_takes_what_go_takes() {
        assert_eq!(replicated_hash("", "").unwrap(), b"");
        assert_eq!(replicated_hash("", "aGFz\r\naA=\n=").unwrap(), b"hash");
        assert_eq!(
            replicated_hash("", "aGFzaB==").unwrap(),
            b"hash",
            "unused bits may be set"
        );
        for bad in [
            "aGFzaA",
            "aGFzaA=",
            "aGFzaA===",
            "*",
            "aGFzaA==x",
            "aGFz aA==",
        ] {
            assert!(
                matches!(replicated_hash("", bad), Err(Error::NoPasswordUser)),
                "{bad}"
            );
        }
        assert!(matches!(
            replicated_hash("pw", ""),
            Err(Error::NoPasswordUser)
        ));
    }
}
