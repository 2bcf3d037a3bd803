//! The traffic log after a kill: complete lines, a torn last line, and appends after it.

use std::io::Write;

use wattgate::traffic::{Line, read_log};

use crate::rig::app::{ask, client, cloud_model, eventually, records};
use crate::rig::mock_upstream::MockUpstream;
use crate::rig::serving::Serving;

async fn ask_some(serving: &Serving, count: usize) {
    let client = client();
    for turn in 0..count {
        let url = format!("{}/v1/chat/completions", serving.url);
        let response = client.post(url).json(&ask("auto", &format!("question {turn}"))).send();
        assert_eq!(response.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn kill_nine_loses_at_most_the_last_line() {
    let upstream = MockUpstream::start().await;
    let serving = Serving::start(&cloud_model("cloud", 3.0, &upstream));
    ask_some(&serving, 40).await;
    // A record is written once its energy is final, which takes longer on a loaded machine.
    let logs = serving.dir.path().join("data/traffic");
    eventually(|| async { (records(&logs).len() >= 39).then_some(()) }).await;
    let dir = serving.kill();
    let kept = records(&dir.path().join("data/traffic")).len();
    assert!((39..=40).contains(&kept), "{kept} of 40");
}

#[tokio::test]
async fn a_torn_line_is_detected_and_does_not_corrupt_the_next() {
    let upstream = MockUpstream::start().await;
    let serving = Serving::start(&cloud_model("cloud", 3.0, &upstream));
    ask_some(&serving, 1).await;
    let logs = serving.dir.path().join("data/traffic");
    eventually(|| async { (records(&logs).len() == 1).then_some(()) }).await;
    let dir = serving.kill();
    let logs = dir.path().join("data/traffic");
    let file = std::fs::read_dir(&logs).unwrap().next().unwrap().unwrap().path();
    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(b"{\"version\":1,\"unix_ms\":17").unwrap();
    let lines: Vec<Line> = read_log(&logs).unwrap().map(Result::unwrap).collect();
    assert!(matches!(lines[..], [Line::Record(_), Line::Torn]), "{lines:?}");

    let serving = Serving::start_in(dir);
    ask_some(&serving, 1).await;
    assert_eq!(upstream.requests().len(), 2);
    let logs = serving.dir.path().join("data/traffic");
    eventually(|| async {
        let lines: Vec<Line> = read_log(&logs).unwrap().map(Result::unwrap).collect();
        matches!(lines[..], [Line::Record(_), Line::Bad { line: 2, .. }, Line::Record(_)])
            .then_some(())
    })
    .await;
}
