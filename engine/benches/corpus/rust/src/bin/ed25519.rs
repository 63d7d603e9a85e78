//! Signs and verifies messages with Ed25519: multiplication of 64-bit words to 128 bits.

use ed25519_compact::{KeyPair, Seed};

fn main() {
    let count: u32 = std::env::args().nth(1).map_or(3000, |n| n.parse().expect("a number"));
    let key = KeyPair::from_seed(Seed::new([0x5a; 32]));
    let mut message = [0u8; 64];
    for i in 0..count {
        message[..4].copy_from_slice(&i.to_le_bytes());
        let signature = key.sk.sign(message, None);
        key.pk.verify(message, &signature).expect("its own signature holds");
        // The next message depends on this signature.
        message.copy_from_slice(signature.as_ref());
    }
    let text: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{text}");
}
