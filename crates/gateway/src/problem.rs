//! Refusals before a message became an MCP call: `application/problem+json`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use std::borrow::Cow;
use toolyard_types::{Code, Problem};

/// Why a request was refused before it became a call.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) detail: Cow<'static, str>,
    /// A newer snapshot may say otherwise: another replica may just have made what is not known here.
    pub(crate) may_be_news: bool,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), may_be_news: false }
    }

    pub(crate) fn unless_news(mut self) -> Self {
        self.may_be_news = true;
        self
    }

    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let mut problem = Problem::new(self.code, self.detail);
        problem.request_id = Some(request_id.to_owned());
        let body = serde_json::to_vec(&problem).expect("a problem of strings always serialises");
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<toolyard_link::NoRoom> for Refusal {
    fn from(no_room: toolyard_link::NoRoom) -> Self {
        Self::new(Code::RateLimited, no_room.to_string())
    }
}

impl From<toolyard_link::Shut> for Refusal {
    fn from(shut: toolyard_link::Shut) -> Self {
        Self::new(shut.code(), shut.to_string())
    }
}
