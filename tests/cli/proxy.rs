//! The proxies that the environment names.

use std::io::{Read, Write, copy};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::world::{Server, World, ended};

/// A SOCKS5 proxy for one connection, which leads to `server` whatever was asked for.
fn socks(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let mut greeting = [0; 2]; // version, number of methods
        client.read_exact(&mut greeting).unwrap();
        client.read_exact(&mut vec![0; greeting[1].into()]).unwrap();
        client.write_all(&[5, 0]).unwrap();
        let mut connect = [0; 5]; // version, command, reserved, "a name", its length
        client.read_exact(&mut connect).unwrap();
        client.read_exact(&mut vec![0; usize::from(connect[4]) + 2]).unwrap();
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let server = TcpStream::connect(server).unwrap();
        let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || copy(&mut up, &mut &server));
        let _ = copy(&mut down, &mut client);
    });
    address
}

#[test]
fn calls_go_through_a_socks_proxy_that_the_environment_names() {
    let world = World::new();
    let server = Server::start(Default::default());
    world.requests("in.jsonl", 0..1);
    let mut command = world
        .tollgate("run in.jsonl --base-url http://provider.test/v1 --unlimited --max-attempts 1 --max-concurrent 1");
    for variable in ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy"] {
        command.env_remove(variable);
    }
    command.env("OPENAI_API_KEY", "k").env("ALL_PROXY", format!("socks5h://{}", socks(server.address())));
    ended(command).expect(0);
    assert_eq!(server.stats().answered, 1);
}
