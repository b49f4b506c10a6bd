//! Requests as an attacker or a client sends them: any method, header and body, and bytes without any rule.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::Toolyard;

/// A request that is not sent yet.
#[must_use]
#[derive(Debug)]
pub struct Request<'a> {
    toolyard: &'a Toolyard,
    builder: reqwest::RequestBuilder,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status; 0 when there was no answer at all.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or why there was no answer.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The problem code of a refusal; empty when there is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of a success.
    ///
    /// # Panics
    /// When it was refused.
    #[track_caller]
    #[must_use]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text);
        self.json()
    }
}

impl<'a> Request<'a> {
    pub(crate) fn new(toolyard: &'a Toolyard, builder: reqwest::RequestBuilder) -> Self {
        Self { toolyard, builder }
    }

    /// With this API key.
    pub fn key(mut self, key: &str) -> Self {
        self.builder = self.builder.bearer_auth(key);
        self
    }

    /// With a header; the same name may be given several times.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// With a JSON body.
    #[expect(clippy::needless_pass_by_value, reason = "written in place at every use")]
    pub fn json(mut self, body: Value) -> Self {
        self.builder = self.builder.json(&body);
        self
    }

    /// With any body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.builder = self.builder.body(body.into());
        self
    }

    /// Sends it and reads the whole answer.
    #[must_use]
    pub fn send(self) -> Answer {
        self.toolyard.runtime().block_on(answer(self.builder))
    }

    /// Sends it and reads only the status of the answer, not a body that may never end; 0 when there is no answer.
    #[must_use]
    pub fn status(self) -> u16 {
        let sent = self.toolyard.runtime().block_on(async { self.builder.send().await });
        sent.map_or(0, |response| response.status().as_u16())
    }

    /// Sends it without waiting for the answer.
    pub fn begin(self) -> tokio::task::JoinHandle<Answer> {
        self.toolyard.runtime().spawn(answer(self.builder))
    }
}

async fn answer(builder: reqwest::RequestBuilder) -> Answer {
    let read = async {
        let response = builder.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok::<_, reqwest::Error>(Answer { status, headers, text: response.text().await? })
    };
    read.await.unwrap_or_else(|error| Answer { status: 0, headers: HeaderMap::new(), text: format!("{error:?}") })
}

/// Sends bytes to a port of this machine as they are and reads until the other side ends the connection or says nothing
/// for `patience`.
///
/// # Panics
/// When there is no connection.
#[must_use]
pub fn raw(port: u16, bytes: &[u8], patience: Duration) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(patience)).expect("a time limit");
    // The other side may refuse before it has read everything.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        text.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}
