//! An MCP server with one tool that answers what it was given: Streamable HTTP or stdio, both eras.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const MAX_BODY_BYTES: usize = 16 << 20;
const MODERN: &str = "2026-07-28";
const TOOL: &str = r#"{"name":"echo","description":"Answers its arguments.","inputSchema":{"type":"object"}}"#;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 for any. The address is printed as the first line.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak over standard input and output instead.
    #[arg(long)]
    stdio: bool,
    /// Speak only the legacy era.
    #[arg(long)]
    legacy: bool,
}

/// Serves until killed, or over stdio until the input ends.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.stdio { stdio(arguments.legacy).await } else { http(arguments.listen, arguments.legacy).await }
}

async fn stdio(legacy_only: bool) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        if let Some(mut answer) = answer(line.as_bytes(), legacy_only) {
            answer.push('\n');
            out.write_all(answer.as_bytes()).await?;
            out.flush().await?;
        }
    }
    Ok(())
}

async fn http(listen: SocketAddr, legacy_only: bool) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await.context("while binding the echo server")?;
    println!("http://{}/mcp", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(request, legacy_only));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that goes away is no event here.
            let _ = server.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

async fn serve(request: Request<Incoming>, legacy_only: bool) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = |status| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    if request.method() != Method::POST {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await else {
        return Ok(status(StatusCode::PAYLOAD_TOO_LARGE));
    };
    let Some(answer) = answer(&body.to_bytes(), legacy_only) else { return Ok(status(StatusCode::ACCEPTED)) };
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Full::from(answer)).expect("a fixed header is valid"))
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CallParams<'a> {
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// The answer to one message; `None` when it wants none.
fn answer(message: &[u8], legacy_only: bool) -> Option<String> {
    let message: Message<'_> = serde_json::from_slice(message).ok()?;
    let (id, method) = (message.id?.get(), message.method?);
    let modern = !legacy_only && message.params.is_some_and(|params| params.get().contains(MODERN));
    let done = if modern { r#""resultType":"complete","# } else { "" };
    let result = match method.as_str() {
        "initialize" => {
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}"#
                .to_owned()
        }
        "server/discover" if modern => format!(
            r#"{{{done}"supportedVersions":["{MODERN}","2025-11-25"],"capabilities":{{"tools":{{}}}},"ttlMs":60000,"cacheScope":"public","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"echo","version":"1"}}}}}}"#
        ),
        "ping" => "{}".to_owned(),
        "tools/list" => format!(r#"{{{done}"tools":[{TOOL}]}}"#),
        "tools/call" => {
            let params: Option<CallParams<'_>> = message.params.and_then(|raw| serde_json::from_str(raw.get()).ok());
            let arguments = params.and_then(|params| params.arguments).map_or("{}", RawValue::get);
            let text = serde_json::to_string(arguments).expect("a string always serialises");
            format!(r#"{{{done}"content":[{{"type":"text","text":{text}}}]}}"#)
        }
        _ => {
            return Some(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"unknown method"}}}}"#
            ));
        }
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_eras_are_answered_and_notifications_are_not() {
        let call = r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"echo","arguments":{"a":1.0}}}"#;
        let want = r#"{"jsonrpc":"2.0","id":1.0,"result":{"content":[{"type":"text","text":"{\"a\":1.0}"}]}}"#;
        assert_eq!(answer(call.as_bytes(), false).as_deref(), Some(want));
        let modern =
            call.replace(r#""name""#, r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name""#);
        assert!(answer(modern.as_bytes(), false).unwrap().contains("resultType"));
        assert!(!answer(modern.as_bytes(), true).unwrap().contains("resultType"));
        assert_eq!(answer(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, false), None);
    }
}
