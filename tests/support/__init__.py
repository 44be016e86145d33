"""What several test modules share: model files made on the spot, fakes and small harnesses."""
