//! Who may ask for what: keys, and the signature of a request.
//!
//! ```text
//! Authorization: KEY-ID base64(lower-case hex of HMAC-SHA1(secret, what is signed))
//! ```

use openssl::base64::{decode_block, encode_block};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

/// A key that the gateway knows.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub secret: String,
    /// Below which path of the repository it may take leases; `/` for everywhere.
    pub path: String,
}

/// The value of the header `Authorization`.
pub fn authorization(id: &str, secret: &str, signed: &[u8]) -> String {
    format!("{id} {}", encode_block(mac(secret, signed).as_bytes()))
}

fn mac(secret: &str, signed: &[u8]) -> String {
    let key = PKey::hmac(secret.as_bytes()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha1(), &key).unwrap();
    let mac = signer.sign_oneshot_to_vec(signed).unwrap();
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whose signature it is; none for a malformed header, an unknown key or a wrong signature, which
/// the gateway tells nobody apart.
pub fn signer<'k>(keys: &'k [Key], header: Option<&str>, signed: &[u8]) -> Option<&'k Key> {
    let (id, encoded) = header?.split_once(' ')?;
    let given = decode_block(encoded).ok()?;
    let key = keys.iter().find(|key| key.id == id)?;
    (given == mac(&key.secret, signed).as_bytes()).then_some(key)
}

/// True if a key may lease a path: all components of the shorter path are those of the longer one,
/// and the lease's path has no fewer bytes than the key's.
pub fn may_lease(key: &Key, path: &str) -> bool {
    let stripped = |path: &str| path.strip_prefix('/').unwrap_or(path).to_owned();
    let (asked, allowed) = (stripped(path), stripped(&key.path));
    let overlap = asked.is_empty()
        || allowed.is_empty()
        || asked
            .split('/')
            .zip(allowed.split('/'))
            .all(|(a, b)| a == b);
    overlap && path.len() >= key.path.len()
}
