//! Passwords as the configuration holds them.
//!
//! PostgreSQL's clients want SCRAM-SHA-256 (RFC 5802, RFC 7677), for which `pgwire` needs the salted password; HTTP and Flight SQL
//! send the password itself, of which argon2id (RFC 9106) keeps a hash. Who reads the salted password can log in with it: the
//! configuration is as secret as a password.

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, gen_salted_password};

use crate::config::ServedUser;
use crate::failure::{Failure, Result};

const SCRAM: &str = "SCRAM-SHA-256";

/// A password as SCRAM proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SaltedPassword {
    pub(crate) salt: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

impl SaltedPassword {
    /// Parses `SCRAM-SHA-256$4096$salt$salted password`, both in base64.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('$').collect();
        let decoded = match parts.as_slice() {
            [SCRAM, iterations, salt, password] if *iterations == SCRAM_ITERATIONS.to_string() => {
                STANDARD.decode(salt).ok().zip(STANDARD.decode(password).ok())
            }
            _ => None,
        };
        let decoded = decoded.filter(|(salt, password)| !salt.is_empty() && password.len() == 32);
        let (salt, password) = decoded.ok_or_else(|| {
            Failure::usage(format!("scram: expected {SCRAM}${SCRAM_ITERATIONS}$salt$password, got something else"))
                .hint("`intentcast serve --hash-password` makes it")
        })?;
        Ok(Self { salt, password })
    }

    /// Makes a salted password that no password matches, with a salt from the hexadecimal digits of `seed`.
    pub(crate) fn unmatched(seed: &str) -> Self {
        let bytes = seed.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        let salt = bytes.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).take(16).collect();
        Self { salt, password: rand::random::<[u8; 32]>().to_vec() }
    }
}

/// Returns the lines of a user's section for a password.
pub(crate) fn hash_password(password: &str) -> Result<String> {
    let salt = rand::random::<[u8; 16]>();
    let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
    let scram = format!("{SCRAM}${SCRAM_ITERATIONS}${}${}", STANDARD.encode(salt), STANDARD.encode(salted));
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(Failure::bug)?;
    let argon2 = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(Failure::bug)?.to_string();
    Ok(format!("scram = \"{scram}\"\nargon2 = \"{argon2}\""))
}

/// Refuses hashes that cannot be read.
pub(super) fn check(user: &ServedUser) -> Result<()> {
    let of_user = |failure: Failure| failure.at(format!("serve.users: {}", user.name));
    if !user.scram.is_empty() {
        SaltedPassword::parse(&user.scram).map_err(of_user)?;
    }
    if !user.argon2.is_empty() {
        PasswordHash::new(&user.argon2).map_err(|e| {
            of_user(Failure::usage(format!("argon2: {e}")).hint("`intentcast serve --hash-password` makes it"))
        })?;
    }
    Ok(())
}

/// Returns whether a password has this hash. Without a hash it takes as long and answers no.
pub(super) fn is_password(password: &str, hash: Option<&str>) -> bool {
    let argon2 = Argon2::default();
    match hash.and_then(|hash| PasswordHash::new(hash).ok()) {
        Some(hash) => argon2.verify_password(password.as_bytes(), &hash).is_ok(),
        None => {
            let mut unused = [0; 32];
            argon2.hash_password_into(password.as_bytes(), b"no user, no salt", &mut unused).unwrap_or_default();
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hashes_know_their_password_and_no_other() {
        let lines = hash_password("früh & spät").unwrap();
        let value = |key: &str| {
            let line = lines.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_once(" = ").unwrap().1.trim_matches('"').to_string()
        };
        let salted = SaltedPassword::parse(&value("scram")).unwrap();
        let again = |password: &str| gen_salted_password(password, &salted.salt, SCRAM_ITERATIONS);
        assert_eq!(again("früh & spät"), salted.password);
        assert_ne!(again("früh"), salted.password);
        assert!(is_password("früh & spät", Some(&value("argon2"))));
        assert!(!is_password("früh", Some(&value("argon2"))) && !is_password("", None));
        for wrong in ["", "md5abc", "SCRAM-SHA-256$4096$x", "SCRAM-SHA-256$1$QUFB$QUFB"] {
            SaltedPassword::parse(wrong).unwrap_err();
        }
    }
}
