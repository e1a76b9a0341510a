//! What the fuzzer of posts calls: see [`crate::fuzzing`].

use bytes::Bytes;
use hyper::header::HeaderMap;
use memchr::memmem;
use serde_json::Value;

use super::key::{as_json, token};
use super::{Arrival, Kind, Post, keep};

const KEYS: [&str; 3] = ["sdk-key-of-a-customer-0001", "odd\"key\\with-escapes", "k"];

/// `data`: what it is (1 byte): a stored post, or the body of one that comes in, of a kind and with a key that the byte
/// says. What is read can be sent, and is no larger than the log's bytes and the keys in them; a body that came in goes out
/// as it was, and what is kept of it holds no key.
pub fn posts(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    match how & 0x80 {
        0 => arrived(usize::from(how & 0x7f), &bytes),
        _ => stored(KEYS[usize::from(how & 0x7f) % KEYS.len()], &bytes),
    }
}

fn stored(key: &str, payload: &Bytes) {
    let Ok(post) = Post::read(payload) else { return };
    let out = post.request(key).expect("these keys can stand in a header");
    let pieces = post.0.body.len();
    assert!(out.body.len() <= payload.len() + pieces * as_json(key.as_bytes()).len());
    assert!(out.headers.len() <= post.0.headers.len() + 2);
    assert!(!post.path().is_empty() && !post.path().starts_with('/') && !post.path().contains(".."));
}

fn arrived(how: usize, body: &Bytes) {
    let kind = Kind::ALL[how % Kind::ALL.len()];
    // A beacon shows its key in its body; keys with control characters are none that anybody can configure.
    let shown = token(body).filter(|token| kind.is_beacon() && !token.chars().any(char::is_control));
    if kind.is_beacon() && shown.is_none() {
        return;
    }
    let key = shown.unwrap_or_else(|| KEYS[how / Kind::ALL.len() % KEYS.len()].to_owned());
    let arrival = Arrival { kind, received_ms: 5, environment: "prod", key: key.as_bytes(), sdk_key_index: 2 };
    let Ok(kept) = keep(&arrival, &HeaderMap::new(), body) else { return };
    let post = Post::read(&kept.into()).expect("what is kept is read");
    let text = as_json(key.as_bytes());
    let holds = |piece: &Bytes| text.len() >= 8 && memmem::find(piece, &text).is_some();
    assert!(!post.0.body.iter().any(holds), "the key is kept");
    let out = post.request(&key).expect("no header has a key").body;
    if out != body {
        // A token that was spelt with escapes comes back in letters.
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        assert!(kind.is_beacon() && json(&out) == json(body), "the body is that of the sdk");
    }
}
