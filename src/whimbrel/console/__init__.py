"""What people look at: charts, and the reports that contain them."""
