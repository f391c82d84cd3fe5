//! X25519 on bytes: aws-lc-rs would derive the public key of each private one that it is given.

#![allow(unsafe_code)]

use aws_lc_sys as ffi;

type Key = [u8; 32];

/// The shared secret; None where the point has low order.
pub fn agree(private: &Key, public: &Key) -> Option<Key> {
    let mut secret = Key::default();
    // SAFETY: curve25519.h takes three pointers to 32 bytes each.
    let done = unsafe { ffi::X25519(secret.as_mut_ptr(), private.as_ptr(), public.as_ptr()) };
    (done == 1).then_some(secret)
}

/// The u-coordinate of a scalar.
pub fn base(private: &Key) -> Key {
    let mut public = Key::default();
    // SAFETY: curve25519.h takes two pointers to 32 bytes each.
    unsafe { ffi::X25519_public_from_private(public.as_mut_ptr(), private.as_ptr()) };
    public
}
