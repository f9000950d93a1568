//! A server that says what it is told, byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// The base URL of a server that gives one of these answers to each connection and then closes it; the last one also to
/// all that follow.
pub(crate) fn answering<A: Into<Vec<u8>>>(answers: impl IntoIterator<Item = A>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let answers: Vec<Vec<u8>> = answers.into_iter().map(Into::into).collect();
    std::thread::spawn(move || {
        let last = answers.last().cloned().unwrap();
        let answers = answers.into_iter().chain(std::iter::repeat(last));
        listener.incoming().zip(answers).for_each(|(stream, answer)| {
            // The client may have gone.
            let _ = serve(&stream.unwrap(), &answer);
        });
    });
    url
}

fn serve(mut stream: &TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    // What is left unread makes the close a reset, which overtakes the answer.
    reader.read_exact(&mut vec![0; length.map_or(0, |length| length.parse().unwrap())])?;
    stream.write_all(answer)
}

/// A whole answer; `head` are its status and its own headers, the lines of which end in CRLF.
pub(crate) fn whole(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}
