package org.example;

import java.util.Map;

import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.security.config.annotation.web.configuration.WebSecurityCustomizer;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;

/** The floor: a route that Spring Security's filters do not see. */
@Configuration
@RestController
class Bare {

    @Bean
    WebSecurityCustomizer unguarded() {
        return web -> web.ignoring().requestMatchers("/bare");
    }

    @PostMapping("/bare")
    Map<String, String> bare() {
        return Map.of("client", "ministry");
    }
}
