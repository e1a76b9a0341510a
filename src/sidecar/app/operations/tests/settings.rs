//! What is refused of settings before anything is made of them, and what is shown of them.

use super::*;

/// Before, such a destination was made, and tried for ever.
#[tokio::test]
async fn an_address_that_nobody_is_let_to_is_refused_at_once_and_the_remedy_is_named() {
    let house = start(&MemDisk::default(), file(&[])).await;
    for address in ["http://10.1.2.3/x", "http://169.254.169.254/x", "http://2130706433/x", "http://[fd00::1]/x"] {
        let settings = hook("hook", "").replace("secret:hook_url", address);
        let told = text(house.operations.put_destination(settings, Put::Create).await);
        assert!(told.contains("only public addresses") && told.contains("[grpc] allow_addresses"), "{address}: {told}");
    }
    assert!(house.operations.journal.state().changes().is_empty(), "nothing of it was written down");
    let at = |host: &str| hook("hook", "").replace("secret:hook_url", &format!("http://{host}/x"));
    house.operations.put_destination(at("localhost:9"), Put::Create).await.unwrap();
    let told = text(house.operations.put_destination(at("192.168.0.1"), Put::Update).await);
    assert!(told.contains("a private address"), "{told}");
}
