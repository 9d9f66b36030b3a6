"""What everything rests on: images, random numbers, the noise schedule, the device."""
