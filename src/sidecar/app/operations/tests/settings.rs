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

/// Before, `show` had nothing to say of a destination of the file.
#[tokio::test]
async fn what_the_file_says_of_a_destination_is_shown_without_secrets_and_whether_it_runs() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("forebay.toml");
    let text = format!(
        "data_dir = \"data\"\n[[environments]]\nid = \"prod\"\nsdk_keys = [\"canary-key\"]\n{}timeout = \"7s\"\n{}",
        hook("hook", "headers = { x-token = \"canary\", x-name = \"secret:named\" }")
            .replace("secret:hook_url", "http://10.1.2.3/canary"),
        hook("other", "").replace("secret:hook_url", "http://10.1.2.3/other"),
    ) + "[secrets]\nnamed = \"canary\"\n";
    write(&path, &text);
    let (config, findings) = config::load(&path);
    let house = start(&MemDisk::default(), config.unwrap_or_else(|| panic!("{findings:?}"))).await;
    let show = async || house.operations.destination("hook".to_owned()).await.unwrap().settings;
    assert_eq!(show().await, "", "nobody said where the file is");
    house.operations.comes_from(ConfigFile::before_reading(&path));
    let shown = show().await;
    assert!(shown.starts_with("[[destinations]]") && shown.contains("timeout = \"7s\""), "{shown}");
    assert!(shown.contains("http://10.1.2.3 (set)") && shown.contains("secret:named"), "{shown}");
    assert!(!shown.contains("canary") && !shown.contains("other"), "{shown}");
    write(&path, &text.replace("\"7s\"", "\"8s\""));
    let shown = show().await;
    assert!(shown.starts_with("# ") && shown.contains("not what runs") && shown.contains("\"8s\""), "{shown}");
    write(&path, "data_dir = ");
    assert_eq!(show().await, "");
}

/// Before, a name that was mistyped had its value shown as it stood: nobody knew that it was a secret.
#[tokio::test]
async fn nothing_is_shown_of_a_file_that_is_half_edited() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("forebay.toml");
    let text = format!(
        "data_dir = \"data\"\n[[environments]]\nid = \"prod\"\nsdk_keys = [\"key-a\"]\n{}",
        hook("hook", "headers = { x-token = \"canary\" }\ntimeout = \"7s\"")
            .replace("secret:hook_url", "http://10.1.2.3/x"),
    );
    write(&path, &text);
    let (config, findings) = config::load(&path);
    let house = start(&MemDisk::default(), config.unwrap_or_else(|| panic!("{findings:?}"))).await;
    house.operations.comes_from(ConfigFile::before_reading(&path));
    let show = async || house.operations.destination("hook".to_owned()).await.unwrap().settings;
    assert!(show().await.contains("x-token"), "{}", show().await);
    for (was, is) in [("headers", "heders"), ("\"webhook\"", "\"webhok\""), ("url = \"", "timout = \"7s\"\nurl = \"")] {
        write(&path, &text.replace(was, is));
        let shown = show().await;
        assert!(!shown.contains("canary") && !shown.contains("[[destinations]]"), "{is}: {shown}");
        assert!(shown.contains("not valid now") && shown.contains("forebay check"), "{is}: {shown}");
    }
}
