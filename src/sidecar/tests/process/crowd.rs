//! A crowd of SDKs: each connects, posts one impression when somebody listens, and asks for nothing more. Those for whom there
//! is no place wait in the kernel, as theirs do. And one SDK that is no part of it, and posts when it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};

use super::load::{Fate, Post, post, request};
use super::wire::Client;

/// Descriptors of this process that are others'.
const OTHERS: u64 = 400;

/// Connections of ours that stay until somebody ends them.
pub(crate) struct Crowd {
    runtime: Runtime,
    keys: Vec<String>,
    /// What was heard: of whom, and what.
    answers: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Crowd {
    /// So many, or as many as this machine lets one process have. `name` makes their keys differ from others'.
    pub(crate) fn comes(name: &str, size: u64, address: SocketAddr) -> Self {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // What is there already is enough where it can't be raised.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(OTHERS);
        let keys: Vec<_> = (0..size.min(most)).map(|n| format!("{name}-{n}")).collect();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("there are threads");
        let answers = Arc::<Mutex<Vec<_>>>::default();
        for (n, key) in keys.iter().enumerate() {
            let (request, answers) = (request(name, std::slice::from_ref(key)), Arc::clone(&answers));
            runtime.spawn(async move {
                // Errors are those of a connection that nobody took, or that was ended.
                let socket = TcpSocket::new_v4()?;
                // It goes by a reset. The kernel may have had no room for what it sent: then it would be taken when it is
                // gone already, and be idle, until what it sent is sent again or the idle limit is over.
                socket.set_zero_linger()?;
                let mut stream = socket.connect(address).await?;
                stream.write_all(&request).await?;
                let mut answer = vec![0; 1_000];
                let length = stream.read(&mut answer).await?;
                // One that is ended before anything was read of it hears nothing.
                if length == 0 {
                    return Ok(());
                }
                answers.lock().unwrap().push((n, String::from_utf8_lossy(&answer[..length]).into_owned()));
                while stream.read(&mut answer).await? > 0 {}
                Ok::<_, std::io::Error>(())
            });
        }
        Self { runtime, keys, answers }
    }

    /// How many there are.
    pub(crate) fn size(&self) -> usize {
        self.keys.len()
    }

    /// How many were answered.
    pub(crate) fn answered(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// All of them go. What became of their posts: none was refused.
    pub(crate) fn goes(self) -> Vec<Post> {
        self.runtime.shutdown_timeout(Duration::from_secs(10));
        let mut posts: Vec<_> =
            self.keys.into_iter().map(|key| Post { keys: vec![key], fate: Fate::Unknown }).collect();
        for (n, answer) in self.answers.lock().unwrap().drain(..) {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
            posts[n].fate = Fate::Acknowledged;
        }
        posts
    }
}

/// An SDK whose connection is open, and stays so.
pub(crate) struct Regular {
    address: SocketAddr,
    client: Client,
    pub(crate) posted: Vec<Post>,
    keys: usize,
}

impl Regular {
    pub(crate) fn at(address: SocketAddr) -> Self {
        let client = Client::connect(address).expect("it listens");
        Self { address, client, posted: Vec::new(), keys: 0 }
    }

    /// Anew.
    pub(crate) fn connects(&mut self) {
        self.client = Client::connect(self.address).expect("it listens");
    }

    /// So many impressions more, which are taken.
    pub(crate) fn posts(&mut self, impressions: usize) {
        assert_eq!(self.tries(impressions), 200);
    }

    /// The same, which may be refused; says how they were answered.
    pub(crate) fn tries(&mut self, impressions: usize) -> u16 {
        let keys: Vec<_> = (self.keys..self.keys + impressions).map(|n| format!("regular-{n}")).collect();
        self.keys += impressions;
        let status = post(&mut self.client, "regular", &keys).expect("its connection is open");
        let fate = if status == 200 { Fate::Acknowledged } else { Fate::Refused(status) };
        self.posted.push(Post { keys, fate });
        status
    }
}
