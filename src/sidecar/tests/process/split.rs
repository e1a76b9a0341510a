//! Split as an SDK sees it: notes each post, and answers as the test wants.
//!
//! What always holds: a post is noted before it is answered.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::sidecar::free_address;
use super::wire::Message;

/// A running Split. Ends with its handle.
pub(crate) struct Split {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    closing: Arc<AtomicBool>,
}

struct Inner {
    status: Mutex<Box<dyn Fn(usize) -> u16 + Send>>,
    posts: Mutex<Vec<Post>>,
}

/// A post that came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// 0: no answer was written.
    pub(crate) status: u16,
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The SDK key that it shows.
    pub(crate) fn key(&self) -> String {
        match self.header("authorization") {
            Some(bearer) => bearer.strip_prefix("Bearer ").expect("as sent").to_owned(),
            None => {
                serde_json::from_slice::<Value>(&self.body).expect("a beacon")["token"].as_str().unwrap().to_owned()
            }
        }
    }
}

impl Split {
    pub(crate) fn start() -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).expect("the address was free");
        let inner = Arc::new(Inner { status: Mutex::new(Box::new(|_| 200)), posts: Mutex::default() });
        let closing = Arc::new(AtomicBool::new(false));
        let (theirs, ends) = (Arc::clone(&inner), Arc::clone(&closing));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), inner) = (stream, Arc::clone(&theirs)) else { continue };
                thread::spawn(move || inner.converse(stream));
            }
        });
        Self { address, inner, closing }
    }

    /// From now on the n-th post is answered so; 0 cuts the connection instead.
    pub(crate) fn answers(&self, status: impl Fn(usize) -> u16 + Send + 'static) {
        *self.inner.status.lock().unwrap() = Box::new(status);
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.inner.posts.lock().unwrap().clone()
    }

    /// Those that were taken, by key, in order.
    pub(crate) fn taken(&self) -> BTreeMap<String, Vec<Post>> {
        let mut taken: BTreeMap<String, Vec<Post>> = BTreeMap::new();
        for post in self.posts().into_iter().filter(|post| post.status == 200) {
            taken.entry(post.key()).or_default().push(post);
        }
        taken
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The listener only looks up when somebody comes.
        drop(TcpStream::connect(self.address));
    }
}

impl Inner {
    fn converse(&self, stream: TcpStream) {
        // An answer is written in pieces, which would wait for each other's acknowledgement.
        let _ = stream.set_nodelay(true);
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = Message::read(&mut reader) {
            let path = request.first.split(' ').nth(1).expect("a request line").to_owned();
            let (place, status) = {
                let mut posts = self.posts.lock().unwrap();
                let status = (self.status.lock().unwrap())(posts.len());
                posts.push(Post { path, headers: request.headers, body: request.body, status: 0 });
                (posts.len() - 1, status)
            };
            if status == 0 {
                let _ = writer.shutdown(Shutdown::Both);
                return;
            }
            self.posts.lock().unwrap()[place].status = status;
            if write!(writer, "HTTP/1.1 {status} As Told\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}
