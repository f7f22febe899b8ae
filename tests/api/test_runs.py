async def test_a_run_is_created(api):
    answer = await api.post("/runs", json={"image": "alpine"})
    assert answer.status_code == 201
    assert (await api.get(f"/runs/{answer.json()['id']}")).json()["state"] == "PENDING"
