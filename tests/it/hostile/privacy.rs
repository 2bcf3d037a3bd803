//! Requests that ask to stay on this machine stay, in whatever form they ask.

use serde_json::Value;

use crate::rig::app::{TestApp, client, cloud_model};
use crate::rig::local_models::fake_smol;
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::raw_http::{read_until, sent};

const HEADERS: &[&[(&str, &str)]] = &[
    &[("x-wattgate-local-only", "true")],
    &[("x-wattgate-local-only", "")],
    &[("x-wattgate-local-only", "0")],
    &[("x-wattgate-local-only", "false"), ("x-wattgate-local-only", "true")],
    &[("x-wattgate-local-only", "true"), ("x-wattgate-local-only", "false")],
    &[("x-wattgate-local-only", "false, true")],
    &[("x-wattgate-local-only", "false,false")],
    &[("x_wattgate_local_only", "true")],
    &[("x-wattgate-localonly", "yes")],
    &[("x-local-only", "1")],
];

const MEMBERS: &[&str] = &[
    r#""wattgate":{"local_only":true}"#,
    r#""wattgate":{"local_only":true},"wattgate":{"floor":0.99}"#,
    r#""wattgate":{"local_only":true},"wattgate":{"local_only":false}"#,
    r#""wattgate":{"local_only":null}"#,
    r#""\u0077attgate":{"\u006cocal_only":true}"#,
    r#""local_only":true"#,
    r#""extra_body":{"wattgate":{"local_only":true}}"#,
    r#""metadata":{"local_only":"true"}"#,
];

fn body(member: &str) -> String {
    let comma = if member.is_empty() { "" } else { "," };
    format!(
        r#"{{{member}{comma}"model":"auto","messages":[{{"role":"user","content":"Prove Fermat"}}]}}"#
    )
}

#[tokio::test]
async fn no_form_of_asking_to_stay_goes_out() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_fake(&(cloud_model("cloud", 3.0, &upstream) + &fake_smol(""))).await;
    app.until_loaded("smol").await;
    let post = async |path: &str, headers: &[(&str, &str)], member: &str| -> Value {
        let mut request = client().post(app.url(path)).header("content-type", "application/json");
        for (name, value) in [&[("x-wattgate-floor", "0.99")], headers].concat() {
            request = request.header(name, value);
        }
        request.body(body(member)).send().await.unwrap().json().await.unwrap()
    };
    // Without a word of it the request goes out.
    for headers in [&[][..], &[("x-wattgate-local-only", "False")]] {
        let reply = post("/v1/route", headers, "").await;
        assert_eq!(
            (&reply["route"], &reply["rule"]["local_only"]),
            (&"cloud".into(), &false.into())
        );
    }
    let cases =
        HEADERS.iter().map(|&headers| (headers, "")).chain(MEMBERS.iter().map(|&m| (&[][..], m)));
    for (headers, member) in cases {
        let reply = post("/v1/route", headers, member).await;
        assert_eq!(reply["rule"]["local_only"], true, "{headers:?} {member}: {reply}");
        let reply = post("/v1/chat/completions", headers, member).await;
        assert_eq!(reply["wattgate"]["route"], "local", "{headers:?} {member}: {reply}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_trailer_counts_too() {
    let upstream = MockUpstream::start().await;
    let app = TestApp::start_fake(&(cloud_model("cloud", 3.0, &upstream) + &fake_smol(""))).await;
    let body = body("");
    let length = body.len();
    let request = format!(
        "POST /v1/route HTTP/1.1\r\nhost: x\r\nx-wattgate-floor: 0.99\r\ntransfer-encoding: chunked\r\n\
         trailer: x-wattgate-local-only\r\n\r\n{length:x}\r\n{body}\r\n0\r\nx-wattgate-local-only: true\r\n\r\n"
    );
    let mut stream = sent(app.address, request.as_bytes()).await;
    let reply = read_until(&mut stream, "candidates").await;
    assert!(reply.contains(r#""local_only":true"#), "{reply}");
}
