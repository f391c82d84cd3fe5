//! The primitives of `tripleratchet`, compiled: the same functions, arguments and results as
//! `tripleratchet.primitives.portable`, which says what each does. Raises `ValueError`.
//!
//! Nothing is invented here: every function is a call or two of AWS-LC, whose time does not depend
//! on secrets. There is no protocol and no state; the ratchet is Python, and only what it does
//! thousands of times a second is not.

#![deny(unsafe_code)]

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Tag};
use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_1024};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

mod curve;

type Bytes<'py> = Bound<'py, PyBytes>;
type Key = [u8; 32];
type Iv = [u8; 16];

#[pymodule(name = "tripleratchet_native")]
mod module {
    #[pymodule_export]
    use super::{
        aes256_cbc_decrypt, aes256_cbc_encrypt, ed25519_verify, hkdf, hkdf_pair, mac, mac_pair,
        mlkem1024_encapsulate, x25519, x25519_base,
    };
}

#[pyfunction]
fn mac<'py>(py: Python<'py>, key: Key, message: &[u8]) -> Bytes<'py> {
    bytes(py, &hmac::sign(&keyed(&key), message))
}

#[pyfunction]
fn mac_pair<'py>(py: Python<'py>, key: Key, one: &[u8], other: &[u8]) -> (Bytes<'py>, Bytes<'py>) {
    let key = keyed(&key);
    let (first, second): (Tag, Tag) = (hmac::sign(&key, one), hmac::sign(&key, other));
    (bytes(py, &first), bytes(py, &second))
}

#[pyfunction]
fn hkdf_pair<'py>(
    py: Python<'py>,
    salt: Option<&[u8]>,
    secret: &[u8],
    info: &[u8],
) -> PyResult<(Bytes<'py>, Bytes<'py>)> {
    let mut okm = [0; 64];
    expand(salt, secret, info, &mut okm)?;
    Ok((bytes(py, &okm[..32]), bytes(py, &okm[32..])))
}

#[pyfunction]
fn hkdf<'py>(
    py: Python<'py>,
    salt: Option<&[u8]>,
    secret: &[u8],
    info: &[u8],
    size: usize,
) -> PyResult<Bytes<'py>> {
    PyBytes::new_with(py, size, |okm| expand(salt, secret, info, okm))
}

#[pyfunction]
fn aes256_cbc_encrypt<'py>(
    py: Python<'py>,
    key: Key,
    iv: Iv,
    plaintext: &[u8],
) -> PyResult<Bytes<'py>> {
    let mut padded = Vec::with_capacity(plaintext.len() / 16 * 16 + 16);
    padded.extend_from_slice(plaintext);
    PaddedBlockEncryptingKey::cbc_pkcs7(aes256(&key)?)
        .and_then(|cipher| {
            cipher.less_safe_encrypt(&mut padded, EncryptionContext::Iv128((&iv).into()))
        })
        .map_err(invalid)?;
    Ok(bytes(py, &padded))
}

#[pyfunction]
fn aes256_cbc_decrypt<'py>(
    py: Python<'py>,
    key: Key,
    iv: Iv,
    ciphertext: &[u8],
) -> PyResult<Bytes<'py>> {
    let mut padded = ciphertext.to_vec();
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(aes256(&key)?).map_err(invalid)?;
    let plaintext = cipher
        .decrypt(&mut padded, DecryptionContext::Iv128((&iv).into()))
        .map_err(|_| PyValueError::new_err("not whole blocks, or bad padding"))?;
    Ok(bytes(py, plaintext))
}

#[pyfunction]
fn x25519<'py>(py: Python<'py>, private: Key, public: Key) -> PyResult<Bytes<'py>> {
    match curve::agree(&private, &public) {
        Some(secret) => Ok(bytes(py, &secret)),
        None => Err(PyValueError::new_err("point of low order")),
    }
}

#[pyfunction]
fn x25519_base<'py>(py: Python<'py>, private: Key) -> Bytes<'py> {
    bytes(py, &curve::base(&private))
}

#[pyfunction]
fn ed25519_verify(public: Key, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message, signature)
        .is_ok()
}

#[pyfunction]
fn mlkem1024_encapsulate<'py>(
    py: Python<'py>,
    public: &[u8],
) -> PyResult<(Bytes<'py>, Bytes<'py>)> {
    let key = EncapsulationKey::new(&ML_KEM_1024, public)
        .map_err(|error: KeyRejected| PyValueError::new_err(error.to_string()))?;
    let (ciphertext, secret) = key.encapsulate().map_err(invalid)?;
    Ok((bytes(py, secret.as_ref()), bytes(py, ciphertext.as_ref())))
}

fn bytes<'py>(py: Python<'py>, content: &(impl AsRef<[u8]> + ?Sized)) -> Bytes<'py> {
    PyBytes::new(py, content.as_ref())
}

fn keyed(key: &[u8]) -> hmac::Key {
    hmac::Key::new(HMAC_SHA256, key)
}

fn aes256(key: &Key) -> PyResult<UnboundCipherKey> {
    UnboundCipherKey::new(&AES_256, key).map_err(invalid)
}

struct Size(usize);

impl KeyType for Size {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(salt: Option<&[u8]>, secret: &[u8], info: &[u8], okm: &mut [u8]) -> PyResult<()> {
    Salt::new(HKDF_SHA256, salt.unwrap_or_default())
        .extract(secret)
        .expand(&[info], Size(okm.len()))
        .and_then(|expanded| expanded.fill(okm))
        .map_err(invalid)
}

fn invalid(_: Unspecified) -> PyErr {
    PyValueError::new_err("refused by AWS-LC")
}
