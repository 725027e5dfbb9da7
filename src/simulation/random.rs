//! Named random streams: a seed always gives the same lake, whatever is drawn elsewhere.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Purpose of a stream; the numbers are part of the lake's contract, so that old seeds give the same bytes.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Catalogue = 1,
    Person = 2,
    Session = 3,
    Stock = 4,
    Guests = 5,
}

/// Returns the stream of (seed, purpose, a, b); for example (seed, Session, user, day).
pub(super) fn stream(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, word) in key.as_chunks_mut::<8>().0.iter_mut().zip([seed, purpose as u64, a, b]) {
        *slot = word.to_le_bytes();
    }
    ChaCha8Rng::from_seed(key)
}

/// Returns two uniform numbers in [0, 1) for (seed, user, day): a cheap draw to skip the many users who stay away.
/// `SplitMix64`'s finaliser (Steele, Lea, Flood 2014) over a linear mix of the three.
pub(super) fn coin(seed: u64, user: u64, day: u64) -> (f32, f32) {
    let mut z = seed
        .wrapping_mul(0xA24B_AED4_963E_E407)
        .wrapping_add(user.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(day.wrapping_mul(0xD1B5_4A32_D192_ED03));
    for _ in 0..2 {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
    }
    let unit = |bits: u64| (bits & 0xFF_FFFF) as f32 / 16_777_216.0;
    (unit(z), unit(z >> 32))
}
