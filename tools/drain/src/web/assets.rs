//! The dashboard's files, as they were built into the binary.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};

static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

const UNBUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tandem</title>\
    <h1>The dashboard is not part of this build</h1>\
    <p>Run <code>scripts/dashboard</code> and build again. The data is there already: \
    <a href=\"/api/v1/overview\">/api/v1/overview</a>.</p></html>";

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// Returns a file; nothing that is not one of ours, whatever the path says.
pub fn file(path: &str) -> Option<Response<Body>> {
    let name = match path.trim_start_matches('/') {
        "" => "index.html",
        name => name,
    };
    let found = FILES.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes);
    let bytes = match found {
        Some(bytes) => bytes,
        None if name == "index.html" => UNBUILT.as_bytes(),
        None => return None,
    };
    // What the build named by its content never changes; the page that names it does.
    let cache = match name.starts_with("assets/") {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, content_type(name))
        .header(header::CACHE_CONTROL, cache)
        .body(Body::from(bytes))
        .ok()
}
